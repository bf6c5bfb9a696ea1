"""The prompt, with the two kinds of tokenizer there are: one that adds a BOS token itself and one that does not.

Both are built here, byte-level and without merges, so that nothing is downloaded and any text survives the round trip.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from helpers.chat_tokenizers import LLAMA, llama_tokenizer, qwen_tokenizer
from helpers.countdown_prompts import render_prompt
from mini_r1.prompts.build import PromptWriter, build_prompts, find_prompt_change
from mini_r1.prompts.settings import PromptError, PromptSettings
from mini_r1.tasks.countdown.task import USER_PROMPT, Countdown
from mini_r1.tasks.task import ASSISTANT_PREFILL, OPENING, SYSTEM_PROMPT
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


def test_missing_chat_template_is_named_with_what_to_set() -> None:
    with pytest.raises(
        ValueError, match=r"no chat template. Fix: set prompt_style: base.* or chat_template to the path"
    ):
        render_prompt(qwen_tokenizer(template=None), NUMS, TARGET)


# --- the keys of a recipe ------------------------------------------------------------------------------------------

BASE = PromptSettings.of(style="base")
QUESTION = TASK.question({"nums": NUMS, "target": TARGET})


@pytest.mark.parametrize("template", [None, LLAMA])
def test_exact_text_for_a_base_model(template: str | None) -> None:
    """Whether it has a chat template or not."""
    assert render_prompt(qwen_tokenizer(template), NUMS, TARGET, BASE) == (
        f"{OPENING}\n\nUser: {QUESTION}\n\nAssistant: Let me solve this step by step.\n<think>"
    )


@pytest.mark.parametrize("around", ["<|begin_of_text|> $A", "$A"])
def test_a_base_model_gets_one_bos_whoever_writes_it(around: str) -> None:
    tokenizer = llama_tokenizer(around=around)
    token_ids = tokens_in_trl(tokenizer, render_prompt(tokenizer, NUMS, TARGET, BASE))
    assert token_ids[0] == tokenizer.bos_token_id and token_ids.count(tokenizer.bos_token_id) == 1
    assert str(tokenizer.decode(token_ids[1:])) == render_prompt(qwen_tokenizer(), NUMS, TARGET, BASE)


def test_a_base_model_without_an_end_token_is_refused() -> None:
    tokenizer = qwen_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(PromptError, match=r"no end token.* Fix: set eos_token"):
        render_prompt(tokenizer, NUMS, TARGET, BASE)


def test_a_base_model_whose_tokenizer_adds_an_end_token_is_refused() -> None:
    with pytest.raises(PromptError, match="do not end in the prefill"):
        render_prompt(llama_tokenizer(around=f"{BOS} $A {END}"), NUMS, TARGET, BASE)


@pytest.mark.parametrize("given", ["Be brief.", "  Be brief.\n"])
def test_an_own_system_prompt_replaces_the_tasks(given: str) -> None:
    chat = render_prompt(qwen_tokenizer(), NUMS, TARGET, PromptSettings.of(system_prompt=given))
    assert chat.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    text = render_prompt(qwen_tokenizer(), NUMS, TARGET, PromptSettings.of(style="base", system_prompt=given))
    assert text.startswith("Be brief.\n\nUser: ")


def test_an_empty_system_prompt_leaves_the_message_out() -> None:
    none = PromptSettings.of(system_prompt="")
    assert render_prompt(llama_tokenizer(), NUMS, TARGET, none).startswith("<|start_header_id|>user<|end_header_id|>")
    text = render_prompt(qwen_tokenizer(), NUMS, TARGET, PromptSettings.of(style="base", system_prompt=""))
    assert text.startswith("User: Using the numbers")


def test_a_file_with_a_chat_template_goes_before_the_tokenizers(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(LLAMA.replace("bos_token", "''"))
    settings = PromptSettings.of(chat_template=file)
    for tokenizer in (qwen_tokenizer(), qwen_tokenizer(template=None)):
        prompt = render_prompt(tokenizer, NUMS, TARGET, settings)
        assert prompt.startswith("<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant.")
        file.write_text("changed")  # the text counts, not the file
        assert render_prompt(tokenizer, NUMS, TARGET, PromptSettings.read(settings.record())) == prompt
    with pytest.raises(PromptError, match="template in the file of the key chat_template does not write"):
        render_prompt(qwen_tokenizer(), NUMS, TARGET, PromptSettings.of(chat_template=file))


@pytest.mark.parametrize(
    ("content", "shown"), [(None, "No such file"), (b"", "is empty"), (b"\xff\xfe", "it is not UTF-8")]
)
def test_a_chat_template_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None, shown: str) -> None:
    file = tmp_path / "own.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PromptError, match=f"own.jinja' .*{shown}.* Fix: give the path"):
        PromptSettings.of(chat_template=file)


@pytest.mark.parametrize("settings", [{"template_kwargs": {"enable_thinking": False}}, {"chat_template": __file__}])
def test_a_chat_template_under_base_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=r"without a chat template.* leave chat_template"):
        PromptSettings.of(style="base", **settings)


def test_settings_come_back_from_a_record() -> None:
    settings = PromptSettings.of(style="base", system_prompt="")
    assert PromptSettings.read(json.loads(json.dumps(settings.record()))) == settings
    with pytest.raises(PromptError, match=r"prompt_style is 'text'.* Fix: set one of chat, base"):
        PromptSettings.read(settings.record() | {"style": "text"})


# --- all prompts of a run ------------------------------------------------------------------------------------------


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
    assert text is not None and "where they differ: 'Before" in text.cause
