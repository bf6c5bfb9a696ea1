"""Q-LoRA on the real tiny base, with bitsandbytes on the CPU: it is 4-bit, it trains, and it merges without loss."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import get_quantization_config

from conftest import ROOT, TINY_BASE
from mini_r1.prompts.build import build_prompts
from mini_r1.recipe.read import parse_recipe
from mini_r1.tasks.countdown.puzzles import generate_puzzles
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tiny.base import CorpusConfig
from mini_r1.train.qlora import QLoraError, mean_kl, merge_adapter, prepare_for_training, qlora_facts

LINEAR_LAYERS = 4 * 7  # four layers of q, k, v, o, gate, up, down


@pytest.fixture(scope="module")
def quantization() -> BitsAndBytesConfig:
    """As the recipe of the notebook asks for it, but computing in bfloat16 as on a GPU."""
    recipe = parse_recipe(
        ["--config", str(ROOT / "receipes" / "grpo-tiny-countdown-qlora.yaml"), "--dtype", "bfloat16"]
    )
    config = get_quantization_config(recipe[2])
    assert config is not None
    return config


def load(
    quantization: BitsAndBytesConfig | None, targets: str | list[str] = "all-linear"
) -> Any:  # a PeftModel, which is used as the PreTrainedModel that it wraps
    """The tiny base with fresh adapters, in bfloat16."""
    base = AutoModelForCausalLM.from_pretrained(TINY_BASE, dtype=torch.bfloat16, quantization_config=quantization)
    torch.manual_seed(0)
    return get_peft_model(base, LoraConfig(r=8, target_modules=targets, task_type="CAUSAL_LM"))


def token_ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(4, 300, (4, 32), generator=torch.Generator().manual_seed(seed))


def test_facts_of_a_qlora_model(quantization: BitsAndBytesConfig) -> None:
    facts = qlora_facts(load(quantization)).check()
    assert facts.linear_layers == facts.four_bit_layers == facts.adapted_layers == LINEAR_LAYERS
    assert facts.formats == ("nf4, double quantisation, bfloat16 compute",)
    base = AutoModelForCausalLM.from_pretrained(TINY_BASE)
    assert facts.base_parameters == sum(parameter.numel() for parameter in base.parameters())
    packed = sum(module.weight.numel() for name, module in base.named_modules() if is_packed(name, module))
    others = facts.base_parameters - packed
    # 4 bits a weight, 8 for each 64 weights, and the scales of the scales, of which each layer has whole blocks
    assert packed * (0.5 + 1 / 64) + 2 * others < facts.base_bytes < packed * 0.53 + 2 * others


def is_packed(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and name != "lm_head"


@pytest.mark.parametrize(
    ("change", "targets", "message"),
    [
        (None, "all-linear", "0 of 28 linear layers are in 4 bits"),
        ({}, ["q_proj"], "4 of 28 linear layers have an adapter"),
        ({"bnb_4bit_quant_type": "fp4"}, "all-linear", "bnb_4bit_quant_type: nf4"),
        ({"bnb_4bit_use_double_quant": False}, "all-linear", "use_bnb_nested_quant: true"),
    ],
)
def test_what_is_not_qlora_is_found_out(change: dict[str, Any] | None, targets: str | list[str], message: str) -> None:
    asked = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16}
    quantization = None if change is None else BitsAndBytesConfig(load_in_4bit=True, **(asked | change))
    with pytest.raises(QLoraError, match=message):
        qlora_facts(load(quantization, targets)).check()


def test_it_can_train_after_an_evaluation(quantization: BitsAndBytesConfig) -> None:
    """Which fails on a CPU with AVX512-BF16 unless `prepare_for_training` has been called."""
    model = load(quantization)
    prepare_for_training(model)
    with torch.no_grad():
        before = model.eval()(input_ids=token_ids()).logits
    model.train()(input_ids=token_ids(), labels=token_ids()).loss.backward()
    gradients = [p.grad for name, p in model.named_parameters() if "lora_B" in name]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients if gradient is not None)
    with torch.no_grad():
        assert torch.equal(before, model.eval()(input_ids=token_ids()).logits)


def test_adapters_are_trained_in_float32(quantization: BitsAndBytesConfig) -> None:
    model = load(quantization).to(torch.bfloat16)
    prepare_for_training(model)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_a_merged_model_is_the_same_policy(quantization: BitsAndBytesConfig, tmp_path: Path) -> None:
    """And merging into the 4-bit weights is not: else the test would prove nothing."""
    model = load(quantization)
    prepare_for_training(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=2e-1)
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    puzzles, _ = build_prompts(generate_puzzles(8, seed=3, world=CorpusConfig().world), Countdown(), tokenizer, 64)
    texts = [f"{prompt}\n3 + 4 = 7, 7 * 9 = 63 no\n" for prompt in puzzles["prompt"]]
    merged = merge_adapter(str(TINY_BASE), tmp_path, quantization, dtype=torch.float32)
    assert {type(module) for module in merged.modules() if isinstance(module, nn.Linear)} == {nn.Linear}
    safe = mean_kl(model, merged, tokenizer, texts)
    with model.disable_adapter():
        nothing = mean_kl(merged, model, tokenizer, texts)
    assert safe < 0.002
    naive = model.merge_and_unload()
    assert safe < 0.2 * mean_kl(merged, naive, tokenizer, texts)
    assert safe < 0.05 * nothing


def test_merging_needs_an_adapter(quantization: BitsAndBytesConfig, tmp_path: Path) -> None:
    with pytest.raises(QLoraError, match="no adapter in"):
        merge_adapter(str(TINY_BASE), tmp_path, quantization, dtype=torch.float32)
