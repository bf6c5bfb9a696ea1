"""A right answer comes back from a tokenizer as one, and ends: for every family of models, and for none spoilt."""

from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from helpers.chat_tokenizers import CHATML, MISTRAL, MISTRAL_V3, PUBLISHED, ZEPHYR, chat_tokenizer
from mini_r1.preflight.round_trip import check_round_trip, stop_tokens
from mini_r1.program.problems import Problem
from mini_r1.prompts.build import PromptWriter
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.rewards import judge_format
from mini_r1.tiny.tokenizer import build_tokenizer

TASK = Countdown()
ROW, COMPLETION = TASK.solved_example()
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True)
class Family:
    """A template with the tokens that it is written for, and where its models say that they end."""

    template: str
    special: tuple[str, ...]
    eos: str
    also: tuple[str, ...] = ()  # in generation_config.json

    def tokenizer(self, **changes: Any) -> PreTrainedTokenizerFast:
        given = {"special": self.special, "eos": self.eos, "plain": TAGS} | changes
        return chat_tokenizer(self.template, **given)


def published(name: str, *details: Any) -> Family:
    return Family(PUBLISHED[name].read_text(encoding="utf-8"), *details)


LLAMA_TOKENS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
FAMILIES = {
    "Qwen2.5": published("qwen2_5", CHATML_TOKENS, "<|im_end|>", ("<|endoftext|>",)),
    "Qwen3": published("qwen3", CHATML_TOKENS, "<|im_end|>", ("<|endoftext|>",)),
    "Llama 3.2": published("llama3_2", LLAMA_TOKENS, "<|eot_id|>", ("<|end_of_text|>",)),
    "Llama 3 with the end of text": published("llama3", LLAMA_TOKENS, "<|end_of_text|>", ("<|eot_id|>",)),
    "Gemma": published("gemma", ("<start_of_turn>", "<end_of_turn>"), "<eos>", ("<end_of_turn>",)),
    "DeepSeek-R1": published("deepseek_r1_distill", ("<｜Assistant｜>", "<｜User｜>"), "<｜end▁of▁sentence｜>"),
    "GLM": published("glm4moe", ("<|user|>", "<|assistant|>", "<|system|>"), "<|endoftext|>", ("<|user|>",)),
    "Phi": published("phi3", ("<|end|>", "<|user|>", "<|assistant|>"), "<|endoftext|>", ("<|end|>",)),
    "Cohere": published("cohere2", ("<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"), "<|END_OF_TURN_TOKEN|>"),
    "Mistral": Family(MISTRAL, (), "</s>"),
    "Mistral v0.3": Family(MISTRAL_V3, ("[INST]", "[/INST]"), "</s>"),
    "Zephyr": Family(ZEPHYR, (), "</s>"),
    "ChatML": Family(CHATML, CHATML_TOKENS, "<|im_end|>"),
}  # fmt: skip


def problem(tokenizer: PreTrainedTokenizerFast, also: tuple[str, ...] = (), colocated: Any = None) -> Problem | None:
    """What the round trip finds, with the model's generation_config naming the tokens `also`."""
    generation = GenerationConfig(eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in also] or None)
    return check_round_trip(PromptWriter(tokenizer, TASK).format, stop_tokens(tokenizer, generation, colocated), TASK)


def test_the_answer_is_right_and_has_all_that_answers_are_made_of() -> None:
    """Else the check could not fail, or would not see a character that can't be written."""
    assert judge_format(COMPLETION)
    assert TASK.judge(COMPLETION, ROW).reward == 1
    assert set("0123456789+-*/()=") <= set(COMPLETION)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_as_published_is_fine(name: str) -> None:
    assert problem(FAMILIES[name].tokenizer(), FAMILIES[name].also) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_tags_that_are_no_tokens_of_their_own_are_fine(name: str) -> None:
    assert problem(FAMILIES[name].tokenizer(plain=()), FAMILIES[name].also) is None


def test_the_shipped_tokenizer_is_fine() -> None:
    assert problem(build_tokenizer()) is None


@pytest.mark.parametrize("tags", [TAGS, ("</think>",), ("<answer>", "</answer>")])
@pytest.mark.parametrize("name", FAMILIES)
def test_special_tags_are_named(name: str, tags: tuple[str, ...]) -> None:
    """Decoding leaves them out: the format reward would stay at 0."""
    family = FAMILIES[name]
    found = problem(family.tokenizer(special=(*family.special, *tags), plain=()), family.also)
    assert found is not None
    assert all(tag in found.cause for tag in set(tags) - {"<think>"})  # which the prompt holds, and no completion
    assert "special" in found.fix


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_that_never_ends_is_named(name: str) -> None:
    """A base model with the template of its instruction-tuned one; what it ends texts with, no template writes."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer(special=(*family.special, family.eos), eos="<|end of document|>")
    if "eos_token" in family.template:
        tokenizer.chat_template = family.template.replace("eos_token", f"'{family.eos}'")
    found = problem(tokenizer)
    assert found is not None
    assert "generation stops only at '<|end of document|>'" in found.cause
    assert "instruction-tuned" in found.fix
    assert "eos_token_id" in found.fix


def test_the_generation_config_ends_it_too() -> None:
    """The fix that the refusal names."""
    tokenizer = Family(CHATML, CHATML_TOKENS, "<|endoftext|>").tokenizer()
    assert problem(tokenizer) is not None
    assert problem(tokenizer, also=("<|im_end|>",)) is None


def test_vllm_in_the_trainer_ends_where_the_models_own_tokenizer_does() -> None:
    """It is not told of `tokenizer_name_or_path`."""
    given, own = (FAMILIES["ChatML"].tokenizer() for _ in range(2))
    own.eos_token = "<|endoftext|>"
    assert problem(given) is None
    found = problem(given, colocated=own)
    assert found is not None
    assert "the model's own tokenizer, which vLLM uses" in found.cause
    assert problem(given, ("<|im_end|>",), colocated=own) is None


@pytest.mark.parametrize(
    ("pattern", "becomes"), [("*", ""), ("7", "1"), ("(", ""), ("=", "is"), ("</", "< /"), ("answer>", "Answer>")]
)
def test_an_answer_that_comes_back_changed_is_shown(pattern: str, becomes: str) -> None:
    tokenizer = FAMILIES["Mistral"].tokenizer(plain=())
    form = PromptWriter(tokenizer, TASK).format
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(pattern, becomes)
    found = check_round_trip(form, stop_tokens(tokenizer, None, None), TASK)
    assert found is not None
    assert "comes back" in found.cause
    assert COMPLETION[-20:] in found.cause


def test_an_end_token_inside_an_answer_is_named() -> None:
    tokenizer = FAMILIES["Zephyr"].tokenizer()
    form = PromptWriter(tokenizer, TASK).format
    tokenizer.eos_token = "</answer>"
    found = check_round_trip(form, stop_tokens(tokenizer, None, None), TASK)
    assert found is not None
    assert "stops at '</answer>', which is part of a right answer" in found.cause
