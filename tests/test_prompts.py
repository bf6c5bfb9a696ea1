"""The prompt, with the two kinds of tokenizer there are: one that adds a BOS token itself and one that does not.

Both are built here, byte-level and without merges, so that nothing is downloaded and any text survives the round trip.
"""

import logging
from collections.abc import Callable

import pytest
from datasets import Dataset
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from chat_tokenizers import LLAMA, llama_tokenizer, qwen_tokenizer
from countdown_prompts import render_prompt
from mini_r1.prompts.build import PromptWriter, build_prompts, find_prompt_change
from mini_r1.tasks.countdown.task import USER_PROMPT, Countdown
from mini_r1.tasks.task import ASSISTANT_PREFILL, SYSTEM_PROMPT
from mini_r1.tiny.tokenizer import build_tokenizer

BOS, END = "<|begin_of_text|>", "<|eot_id|>"
NUMS, TARGET = [19, 36, 55, 7], 65
TASK = Countdown()


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "qwen": qwen_tokenizer,
    "llama": llama_tokenizer,
    "tiny": build_tokenizer,
}


def tokens_in_trl(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """As GRPOTrainer._tokenize_prompts of trl 1.16 does with prompts that are text."""
    token_ids: list[int] = tokenizer(text=[prompt])["input_ids"][0]
    return token_ids


def test_constants_are_the_recipe() -> None:
    assert TASK.question({"nums": NUMS, "target": TARGET}).startswith(
        "Using the numbers [19, 36, 55, 7], create an equation that equals 65. You can use basic arithmetic operations "
        "(+, -, *, /) and each number can only be used once."
    )
    assert USER_PROMPT.endswith("for example <answer> (1 + 2) / 3 = 1 </answer>.")
    assert ASSISTANT_PREFILL == "Let me solve this step by step.\n<think>"


def test_exact_chatml_text() -> None:
    assert render_prompt(qwen_tokenizer(), NUMS, TARGET) == (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
        f"<|im_start|>user\n{USER_PROMPT.format(nums='[19, 36, 55, 7]', target=65)}<|im_end|>\n"
        "<|im_start|>assistant\nLet me solve this step by step.\n<think>"
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_prefill_is_last_in_text_and_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    prompt = render_prompt(tokenizer, NUMS, TARGET)
    assert prompt.endswith(ASSISTANT_PREFILL)
    assert str(tokenizer.decode(tokens_in_trl(tokenizer, prompt))).endswith(ASSISTANT_PREFILL)


def test_bos_adding_tokenizer_gets_exactly_one() -> None:
    tokenizer = llama_tokenizer()
    prompt = render_prompt(tokenizer, NUMS, TARGET)
    token_ids = tokens_in_trl(tokenizer, prompt)
    assert token_ids[0] == tokenizer.bos_token_id and token_ids.count(tokenizer.bos_token_id) == 1
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": TASK.question({"nums": NUMS, "target": TARGET})},
    ]
    header = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    rendered = f"{header}{ASSISTANT_PREFILL}"
    assert tokens_in_trl(tokenizer, rendered).count(tokenizer.bos_token_id) == 2  # the trap is real
    assert token_ids == tokenizer(text=rendered, add_special_tokens=False)["input_ids"]  # what the template meant


def test_template_that_writes_the_only_bos_keeps_it() -> None:
    tokenizer = llama_tokenizer(around="$A")
    prompt = render_prompt(tokenizer, NUMS, TARGET)
    assert prompt.startswith(BOS)
    assert tokens_in_trl(tokenizer, prompt).count(tokenizer.bos_token_id) == 1


def test_tokenizer_that_writes_the_only_bos_keeps_it() -> None:
    tokenizer = llama_tokenizer(LLAMA.replace("{{- bos_token }}", ""))
    token_ids = tokens_in_trl(tokenizer, render_prompt(tokenizer, NUMS, TARGET))
    assert token_ids[0] == tokenizer.bos_token_id and token_ids.count(tokenizer.bos_token_id) == 1


def test_bos_less_tokenizer_gets_none() -> None:
    tokenizer = qwen_tokenizer()
    token_ids = tokens_in_trl(tokenizer, render_prompt(tokenizer, NUMS, TARGET))
    assert tokenizer.bos_token_id is None
    assert tokenizer.decode(token_ids) == render_prompt(tokenizer, NUMS, TARGET)


def test_template_with_two_bos_is_refused() -> None:
    with pytest.raises(ValueError, match="starts with 2 BOS tokens"):
        render_prompt(llama_tokenizer(LLAMA.replace("{{- bos_token }}", "{{- bos_token + bos_token }}")), NUMS, TARGET)


def test_tokenizer_that_appends_an_end_token_is_refused() -> None:
    with pytest.raises(ValueError, match="do not end in the prefill"):
        render_prompt(llama_tokenizer(around=f"{BOS} $A {END}"), NUMS, TARGET)


@pytest.mark.parametrize(
    "normalizer", [normalizers.Lowercase(), normalizers.Replace("\n", " "), normalizers.Replace(" ", "")]
)
def test_tokenizer_that_changes_text_is_refused(normalizer: normalizers.Normalizer) -> None:
    tokenizer = qwen_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizer
    with pytest.raises(ValueError, match="do not end in the prefill"):
        render_prompt(tokenizer, NUMS, TARGET)


def test_missing_chat_template_is_named() -> None:
    with pytest.raises(ValueError, match="no chat template"):
        render_prompt(qwen_tokenizer(template=None), NUMS, TARGET)


def puzzle_rows() -> Dataset:
    """Prompts of three different lengths; the byte tokenizers make one token per character."""
    return Dataset.from_list(
        [{"nums": [1, 2, 3], "target": 6}, {"nums": NUMS, "target": 65}, {"nums": [7], "target": 7}]
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_build_prompts_adds_the_column(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    dataset, dropped = build_prompts(puzzle_rows(), TASK, tokenizer, max_prompt_length=2000, batch_size=2)
    assert dropped == 0 and dataset.column_names == ["nums", "target", "prompt"]
    for row in dataset:
        assert row["prompt"] == render_prompt(tokenizer, row["nums"], row["target"])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_build_prompts_drops_exactly_the_ones_over_the_limit(name: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = TOKENIZERS[name]()
    lengths = [len(tokens_in_trl(tokenizer, render_prompt(tokenizer, r["nums"], r["target"]))) for r in puzzle_rows()]
    assert sorted(lengths) == [lengths[2], lengths[0], lengths[1]] and len(set(lengths)) == 3
    with caplog.at_level(logging.WARNING):
        dataset, dropped = build_prompts(puzzle_rows(), TASK, tokenizer, max_prompt_length=lengths[0])
    assert (dropped, dataset["nums"][:]) == (1, [[1, 2, 3], [7]])
    assert f"2 kept, 1 dropped (over {lengths[0]} tokens)" in caplog.text


def test_build_prompts_with_nothing_left_names_the_setting() -> None:
    tokenizer = qwen_tokenizer()
    longest = len(tokens_in_trl(tokenizer, render_prompt(tokenizer, NUMS, TARGET)))
    with pytest.raises(ValueError, match=f"all 3 prompts .*max_prompt_length=100 .*the longest {longest}"):
        build_prompts(puzzle_rows(), TASK, tokenizer, max_prompt_length=100)


def test_build_prompts_checks_the_tokens() -> None:
    with pytest.raises(ValueError, match="do not end in the prefill"):
        build_prompts(puzzle_rows(), TASK, llama_tokenizer(around=f"{BOS} $A {END}"), max_prompt_length=2000)


def test_build_prompts_of_no_puzzles() -> None:
    with pytest.raises(ValueError, match="no problems"):
        build_prompts(puzzle_rows().select([]), TASK, qwen_tokenizer(), max_prompt_length=100)


def test_a_prompt_that_is_not_the_one_of_the_record_is_found() -> None:
    """By its text, or by its tokens where a tokenizer cuts the same text otherwise; a record without one fits."""
    made = PromptWriter(qwen_tokenizer(), TASK).example()
    assert find_prompt_change(made, made) is None
    assert find_prompt_change(made, {}) is None
    tokens = find_prompt_change(made, made | {"example_tokens": "0"})
    assert tokens is not None and "same text, other tokens" in tokens.cause
    text = find_prompt_change(made, made | {"example": "Before: " + made["example"]})
    assert text is not None and "where they part: 'Before" in text.cause
