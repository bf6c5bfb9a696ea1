"""The prompt, with the two kinds of tokenizer there are: one that adds a BOS token itself and one that does not.

Both are built here, byte-level and without merges, so that nothing is downloaded and any text survives the round trip.
"""

import logging
from collections.abc import Callable

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mini_r1.prompts import (
    ASSISTANT_PREFILL,
    SYSTEM_PROMPT,
    USER_PROMPT,
    build_prompts,
    chat_messages,
    render_prompt,
)
from mini_r1.tiny_tokenizer import build_tokenizer

# What Qwen2.5's own template does with messages and no tools, its default system prompt included.
CHATML = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Llama 3's: writes the BOS token, trims every message.
LLAMA = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}"
    "{{- '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
BOS, END = "<|begin_of_text|>", "<|eot_id|>"
NUMS, TARGET = [19, 36, 55, 7], 65


def byte_level(special: list[str]) -> Tokenizer:
    """One token per byte and per special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def qwen_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    backend = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def llama_tokenizer(template: str = LLAMA, single: str = f"{BOS} $A") -> PreTrainedTokenizerFast:
    """A tokenizer that puts special tokens around a text as `single` says."""
    backend = byte_level([BOS, END, "<|start_header_id|>", "<|end_header_id|>"])
    specials = [(token, backend.token_to_id(token)) for token in (BOS, END)]
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, eos_token=END, pad_token=END, chat_template=template
    )


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
    messages = chat_messages(NUMS, TARGET)
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[1]["content"].startswith(
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
    rendered = tokenizer.apply_chat_template(chat_messages(NUMS, TARGET), tokenize=False, continue_final_message=True)
    assert tokens_in_trl(tokenizer, str(rendered)).count(tokenizer.bos_token_id) == 2  # the trap is real
    assert token_ids == tokenizer(text=rendered, add_special_tokens=False)["input_ids"]  # what the template meant


def test_template_that_writes_the_only_bos_keeps_it() -> None:
    tokenizer = llama_tokenizer(single="$A")
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
        render_prompt(llama_tokenizer(single=f"{BOS} $A {END}"), NUMS, TARGET)


def test_missing_chat_template_is_named() -> None:
    with pytest.raises(ValueError, match="no chat template"):
        render_prompt(qwen_tokenizer(template=None), NUMS, TARGET)


@pytest.mark.parametrize(
    "old, new",
    [
        ("message.content +", "message.content.replace('<think>', '') +"),  # cut out of the prefill
        ("message.content +", "(message.content if message.role != 'assistant' else '') +"),
        ("{%- for", "{{- raise_exception('System role not supported') }}{%- for"),  # as Gemma 2's
    ],
)
def test_template_that_spoils_the_prefill_is_refused(old: str, new: str) -> None:
    tokenizer = qwen_tokenizer(CHATML.replace(old, new))
    with pytest.raises(ValueError, match="chat template"):
        render_prompt(tokenizer, NUMS, TARGET)


def puzzle_rows() -> Dataset:
    """Prompts of three different lengths; the byte tokenizers make one token per character."""
    return Dataset.from_list(
        [{"nums": [1, 2, 3], "target": 6}, {"nums": NUMS, "target": 65}, {"nums": [7], "target": 7}]
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_build_prompts_adds_the_column(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    dataset, dropped = build_prompts(puzzle_rows(), tokenizer, max_prompt_length=2000, batch_size=2)
    assert dropped == 0 and dataset.column_names == ["nums", "target", "prompt"]
    for row in dataset:
        assert row["prompt"] == render_prompt(tokenizer, row["nums"], row["target"])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_build_prompts_drops_exactly_the_ones_over_the_limit(name: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = TOKENIZERS[name]()
    lengths = [len(tokens_in_trl(tokenizer, render_prompt(tokenizer, r["nums"], r["target"]))) for r in puzzle_rows()]
    assert sorted(lengths) == [lengths[2], lengths[0], lengths[1]] and len(set(lengths)) == 3
    with caplog.at_level(logging.WARNING):
        dataset, dropped = build_prompts(puzzle_rows(), tokenizer, max_prompt_length=lengths[0])
    assert (dropped, dataset["nums"][:]) == (1, [[1, 2, 3], [7]])
    assert f"2 kept, 1 dropped (over {lengths[0]} tokens)" in caplog.text


def test_build_prompts_with_nothing_left_names_the_setting() -> None:
    tokenizer = qwen_tokenizer()
    longest = len(tokens_in_trl(tokenizer, render_prompt(tokenizer, NUMS, TARGET)))
    with pytest.raises(ValueError, match=f"all 3 prompts .*max_prompt_length=100 .*the longest {longest}"):
        build_prompts(puzzle_rows(), tokenizer, max_prompt_length=100)


def test_build_prompts_checks_the_tokens() -> None:
    with pytest.raises(ValueError, match="do not end in the prefill"):
        build_prompts(puzzle_rows(), llama_tokenizer(single=f"{BOS} $A {END}"), max_prompt_length=2000)


def test_build_prompts_of_no_puzzles() -> None:
    with pytest.raises(ValueError, match="no puzzles"):
        build_prompts(puzzle_rows().select([]), qwen_tokenizer(), max_prompt_length=100)
