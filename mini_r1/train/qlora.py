"""Q-LoRA: a frozen base in 4 bits, small adapters trained on top, and a proof of both.

Each linear layer of the base is stored as NF4, 4 bits a weight in blocks of 64 whose scales are quantised again, and
computes in 16 bits; LoRA adds to its output B A x with small trainable A and B (https://arxiv.org/abs/2305.14314,
section 3). bitsandbytes does the first, peft the second, and TRL builds both from a recipe with `load_in_4bit: true`,
`use_peft: true` and `lora_target_modules: all-linear`. Runs on a GPU, and on a CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

OUTPUT_LAYER = "lm_head"  # stays in 16 bits: it decides each token, and often is the embedding too


class QLoraError(ValueError):
    """A model that is not what Q-LoRA needs; the message says what is missing and the fix."""


@dataclass(frozen=True, slots=True)
class QLoraFacts:
    """What a Q-LoRA model is made of.

    Attributes:
        linear_layers: of the base, but for the output layer; `four_bit_layers` and `adapted_layers` count among them.
        formats: how 4-bit weights are stored and computed with, such as "nf4, double quantisation, bfloat16 compute".
        base_parameters, trainable_parameters: as the mathematics counts them, not as they are packed.
        base_bytes: of the frozen weights with all their scales.
        trainable_bytes: of the adapters' weights, without gradients and optimizer.
    """

    linear_layers: int
    four_bit_layers: int
    adapted_layers: int
    formats: tuple[str, ...]
    base_parameters: int
    trainable_parameters: int
    base_bytes: int
    trainable_bytes: int

    def check(self) -> "QLoraFacts":
        """Return self if every linear layer is NF4 with double quantisation and has an adapter.

        Raises:
            QLoraError: saying which is not so. A request for 4 bits that got lost on its way to the model ends here.
        """
        if self.four_bit_layers < self.linear_layers:
            raise QLoraError(
                f"{self.four_bit_layers} of {self.linear_layers} linear layers are in 4 bits: load the model with "
                f"quantization_config (recipe: load_in_4bit: true)"
            )
        if self.adapted_layers < self.linear_layers:
            raise QLoraError(
                f"{self.adapted_layers} of {self.linear_layers} linear layers have an adapter: set use_peft: true and "
                f"lora_target_modules: all-linear"
            )
        if not all(text.startswith("nf4, double") for text in self.formats):
            raise QLoraError(
                f"4-bit layers are {'; '.join(self.formats)}: set bnb_4bit_quant_type: nf4 and "
                f"use_bnb_nested_quant: true"
            )
        return self

    def __str__(self) -> str:
        total, in_16_bits = self.base_parameters + self.trainable_parameters, 2 * self.base_parameters
        return (
            f"4-bit layers         {self.four_bit_layers} of {self.linear_layers} linear layers\n"
            f"format               {'; '.join(self.formats) or 'none'}\n"
            f"layers with adapter  {self.adapted_layers}\n"
            f"trainable            {self.trainable_parameters:,} of {total:,} parameters "
            f"({self.trainable_parameters / total:.1%})\n"
            f"frozen base          {self.base_bytes / 1e6:,.2f} MB; in 16 bits {in_16_bits / 1e6:,.2f} MB\n"
            f"adapters             {self.trainable_bytes / 1e6:,.2f} MB"
        )


def qlora_facts(model: nn.Module) -> QLoraFacts:
    """Count what `model` really holds, layer by layer; nothing is taken from its configuration."""
    linear = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name and OUTPUT_LAYER not in name
    ]
    four_bit = [layer for layer in linear if isinstance(layer, Linear4bit)]
    adapted = [module for module in model.modules() if isinstance(module, LoraLayer) and module.lora_A]
    base = [parameter for name, parameter in model.named_parameters() if ".lora_" not in name]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return QLoraFacts(
        linear_layers=len(linear),
        four_bit_layers=len(four_bit),
        adapted_layers=len(adapted),
        formats=tuple(sorted({_format(layer) for layer in four_bit})),
        base_parameters=sum(map(_logical_size, base)),
        trainable_parameters=sum(parameter.numel() for parameter in trained),
        base_bytes=sum(map(_stored_bytes, base)),
        trainable_bytes=sum(parameter.nbytes for parameter in trained),
    )


def prepare_for_training(model: nn.Module) -> None:
    """Make a Q-LoRA model safe to train; to be called once TRL has built it, before the optimizer is made.

    * Adapters in float32: TRL 1.16 casts them to bfloat16, whose 8 bits of precision round most of an update of 1e-5
      to a weight of 1e-2 away. They are small, so this costs little memory.
    * On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks the weights in the first evaluation, and the next backward
      pass fails: the packing is turned off.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def merge_adapter(
    base: str, adapter: Path, quantization: BitsAndBytesConfig, *, dtype: torch.dtype, revision: str | None = None
) -> PreTrainedModel:
    """Return the base with the adapter added to its weights: a model without peft or 4 bits, to save or to serve.

    The adapter was trained on the base as 4 bits represent it, errors included. So the base is loaded in 4 bits just as
    in training, expanded to float32, and only then the adapter is added. Merging into the 4-bit weights themselves
    would round the sum to 16 values a block and lose most of what was learned.

    Args:
        base: Hub id or folder of the base.
        adapter: folder with adapter_config.json, as `trainer.save_model` writes it.
        quantization: as in training.
        dtype: of the merged model.

    Raises:
        QLoraError: if there is no adapter in the folder.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise QLoraError(f"no adapter in {str(adapter)!r}: give the folder that trainer.save_model wrote")
    # TRL loads in this type, and quantises what has been rounded to it.
    trained_in = quantization.bnb_4bit_compute_dtype
    four_bit = AutoModelForCausalLM.from_pretrained(
        base, revision=revision, quantization_config=quantization, dtype=trained_in, trust_remote_code=False
    )
    expanded = four_bit.dequantize(torch.float32).float()
    merged: Any = PeftModel.from_pretrained(expanded, adapter).merge_and_unload(safe_merge=True)
    merged.config.dtype = dtype
    return cast(PreTrainedModel, merged.to(dtype))


@torch.no_grad()
def mean_kl(
    policy: PreTrainedModel, other: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> float:
    """How far `other` is from `policy`: mean KL divergence of their next-token distributions on `texts`, in nats."""
    distances = []
    for text in texts:
        token_ids = tokenizer(text=text, return_tensors="pt")["input_ids"]
        ours, theirs = (
            model(input_ids=token_ids.to(model.device)).logits[0].float().log_softmax(-1).cpu()
            for model in (policy.eval(), other.eval())
        )
        distances.append((ours.exp() * (ours - theirs)).sum(-1))
    return float(torch.cat(distances).mean())


def _format(layer: Linear4bit) -> str:
    state = cast(Any, layer.weight).quant_state
    if state is None:
        return "not quantised yet"
    nested = "double quantisation" if state.nested else "single quantisation"
    return f"{state.quant_type}, {nested}, {str(layer.compute_dtype).removeprefix('torch.')} compute"


def _logical_size(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()


def _stored_bytes(parameter: nn.Parameter) -> int:
    """Bytes of a parameter, with the scales of its blocks (8 bits each) and the scales of these."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.nbytes
    scales = [state.absmax, *([state.state2.absmax] if state.nested else [])]
    return parameter.nbytes + sum(tensor.nbytes for tensor in scales)
