"""The R1 prompt: a chat whose assistant turn is already begun, so that the completion starts inside `<think>`.

The trainer gets each prompt as text, not as messages: TRL opens a new assistant turn after messages, which would end
the prefill. It tokenises the text with `tokenizer(text=prompt)`, so a tokenizer that puts a BOS token in front would
double the one that its chat template wrote; `PromptWriter` takes the template's away in that case.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mini_r1.chat_template import ChatFormat, PromptError, PromptSettings
from mini_r1.problems import Problem

logger = logging.getLogger(__name__)

SYSTEM_PROMPT = (
    "You are a helpful assistant. You first think about the reasoning process in your mind and then provide the user "
    "with the answer."
)
USER_PROMPT = (
    "Using the numbers {nums}, create an equation that equals {target}. You can use basic arithmetic operations "
    "(+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. And return the final "
    "equation and answer in <answer> </answer> tags, for example <answer> (1 + 2) / 3 = 1 </answer>."
)
EXAMPLE_NUMS, EXAMPLE_TARGET = (1, 2, 3), 6
ASSISTANT_PREFILL = "Let me solve this step by step.\n<think>"


class PromptWriter:
    """Writes the prompts of a tokenizer's policy, all in the same format.

    Args:
        tokenizer: the policy's tokenizer.
        settings: the run's; by default no variables for the template, and today's date.

    Raises:
        PromptError: if the tokenizer has no chat template or one that the prompt can't be made with, or the tokens
            come out with two BOS tokens or something after the prefill.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: PromptSettings | None = None) -> None:
        self.tokenizer = tokenizer
        self.format = ChatFormat.of(tokenizer, SYSTEM_PROMPT, user_text(EXAMPLE_NUMS, EXAMPLE_TARGET), settings)
        self._adds_bos = _leading_bos(tokenizer, "a") > 0
        _check_tokens(tokenizer, self.write(EXAMPLE_NUMS, EXAMPLE_TARGET))  # the others differ in their numbers only

    def write(self, nums: Sequence[int], target: int) -> str:
        """The prompt of one puzzle: text that ends in the assistant's header and `ASSISTANT_PREFILL`.

        `tokenizer(text=...)` gives it one BOS token at most.
        """
        prompt = self.format.begin(SYSTEM_PROMPT, user_text(nums, target), ASSISTANT_PREFILL)
        bos = self.tokenizer.bos_token
        return prompt.removeprefix(bos) if bos and self._adds_bos else prompt


def user_text(nums: Sequence[int], target: int) -> str:
    """What the user asks."""
    return USER_PROMPT.format(nums=list(nums), target=target)


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, nums: Sequence[int], target: int, settings: PromptSettings | None = None
) -> str:
    """Write the prompt of a single puzzle.

    Raises:
        PromptError: as `PromptWriter`.
    """
    return PromptWriter(tokenizer, settings).write(nums, target)


def example(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings | None = None) -> dict[str, Any]:
    """One prompt and a digest of its tokens, for a run's record: they show a template or tokenizer that was changed.

    Raises:
        PromptError: as `PromptWriter`.
    """
    prompt = render_prompt(tokenizer, EXAMPLE_NUMS, EXAMPLE_TARGET, settings)
    token_ids = tokenizer(text=prompt)["input_ids"]
    return {"example": prompt, "example_tokens": hashlib.blake2b(repr(token_ids).encode(), digest_size=8).hexdigest()}


def find_change(made: Mapping[str, Any], began: Mapping[str, Any]) -> Problem | None:
    """What is different in a prompt that is made now from that of a run's record; a record without one fits."""
    old, new = began.get("example"), made["example"]
    if old is None or (old == new and began.get("example_tokens") == made["example_tokens"]):
        return None
    at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    shown = f"{old[at : at + 40]!r} -> {new[at : at + 40]!r}" if old != new else "same text, other tokens"
    cause = f"it is not the one that this run began with (old -> new, where they part: {shown})"
    fix = "put the old chat template and tokenizer back, or set another output_dir for a new run"
    return Problem("the prompt", "another one now", "the prompt that the run began with", fix, cause)


def build_prompts(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_length: int,
    settings: PromptSettings | None = None,
    batch_size: int = 1000,
) -> tuple[Dataset, int]:
    """Add the column `prompt` and drop the rows whose prompt is too long.

    Args:
        dataset: rows with nums and target.
        tokenizer: the policy's tokenizer.
        max_prompt_length: in tokens, special tokens included, as TRL will count them.
        settings: those of the run.
        batch_size: prompts tokenised at a time.

    Returns:
        the rows kept, in their order, and how many were dropped.

    Raises:
        PromptError: as `PromptWriter`, or if no row is left.
    """
    if not len(dataset):
        raise PromptError("there are no puzzles to make prompts of", "name a data set that has some")
    writer = PromptWriter(tokenizer, settings)
    prompts = [writer.write(nums, target) for nums, target in zip(dataset["nums"], dataset["target"], strict=True)]
    lengths: list[int] = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(text=prompts[start : start + batch_size])["input_ids"]
        lengths.extend(len(token_ids) for token_ids in batch)
    keep = [index for index, length in enumerate(lengths) if length <= max_prompt_length]
    dropped = len(prompts) - len(keep)
    if not keep:
        raise PromptError(
            f"all {dropped} prompts are longer than max_prompt_length={max_prompt_length} tokens: the shortest has "
            f"{min(lengths)}, the longest {max(lengths)}",
            f"set max_prompt_length: {max(lengths)} to keep them all",
        )
    level = logging.WARNING if dropped else logging.INFO
    logger.log(level, "prompts: %d kept, %d dropped (over %d tokens)", len(keep), dropped, max_prompt_length)
    return dataset.add_column("prompt", prompts).select(keep), dropped


def _check_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    """Look at the tokens that TRL will make of a prompt (GRPOTrainer._tokenize_prompts, trl 1.16)."""
    if (count := _leading_bos(tokenizer, prompt)) > 1:
        raise PromptError(
            f"the prompt starts with {count} BOS tokens {tokenizer.bos_token!r} instead of one: {prompt[:80]!r}",
            "take one of them out of the chat template",
        )
    decoded = str(tokenizer.decode(tokenizer(text=prompt)["input_ids"], clean_up_tokenization_spaces=False))
    if not decoded.endswith(ASSISTANT_PREFILL):
        raise PromptError(
            f"the tokens of the prompt do not end in the prefill {ASSISTANT_PREFILL!r} but in {decoded[-80:]!r}",
            "give a tokenizer_name_or_path that keeps text as it is and adds no end token (add_eos_token: false)",
        )


def _leading_bos(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Count the BOS tokens at the front of a text's tokens."""
    token_ids = tokenizer(text=text)["input_ids"]
    return sum(1 for _ in takewhile(lambda token_id: token_id == tokenizer.bos_token_id, token_ids))
