"""The R1 prompt: the assistant's turn has already begun, in a chat or in plain text, and continues inside `<think>`.

The trainer gets each prompt as text, not as messages: TRL opens a new assistant turn after messages, which would end
the prefill. It tokenises the text with `tokenizer(text=prompt)`, so a tokenizer that puts a BOS token in front would
double the one that its chat template wrote; `PromptWriter` takes the template's away in that case.
"""

import hashlib
import logging
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mini_r1.program.problems import Problem
from mini_r1.prompts.base_text import BaseFormat
from mini_r1.prompts.chat_template import ChatFormat
from mini_r1.prompts.settings import PromptError, PromptSettings
from mini_r1.tasks.task import Row, Task, rows_of

logger = logging.getLogger(__name__)

PromptFormat = ChatFormat | BaseFormat


class PromptWriter:
    """Writes the prompts of a task for a tokenizer's policy, all in the same format.

    Args:
        tokenizer: the policy's tokenizer.
        task: what is asked.
        settings: the run's; by default those of a recipe that sets none of its keys, and today's date.

    Raises:
        PromptError: if the tokenizer has no chat template or one that the prompt can't be made with, no end token for
            a base model, or the tokens come out with two BOS tokens or something after the prefill.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, task: Task, settings: PromptSettings | None = None) -> None:
        self.tokenizer, self.task = tokenizer, task
        settings = settings or PromptSettings()
        example, _ = task.solved_example()
        own = task.opening if settings.style == "base" else task.system_prompt
        self.system = own if settings.system_prompt is None else settings.system_prompt
        self.format: PromptFormat
        if settings.style == "base":
            self.format = BaseFormat(tokenizer, settings)
        else:
            self.format = ChatFormat(tokenizer, self.system, task.question(example), settings)
        self._adds_bos = _leading_bos(tokenizer, "a") > 0
        _check_tokens(tokenizer, self.write(example), task.prefill)  # the others differ in their question only

    def write(self, row: Row) -> str:
        """The prompt of one problem: text that ends in the beginning of the assistant's turn and the task's prefill.

        `tokenizer(text=...)` gives it one BOS token at most.
        """
        prompt = self.format.begin(self.system, self.task.question(row), self.task.prefill)
        bos = self.tokenizer.bos_token
        return prompt.removeprefix(bos) if bos and self._adds_bos else prompt

    def example(self) -> dict[str, Any]:
        """One prompt and a digest of its tokens, for a run's record: they show a template or tokenizer that changed."""
        prompt = self.write(self.task.solved_example()[0])
        digest = hashlib.blake2b(repr(self.tokenizer(text=prompt)["input_ids"]).encode(), digest_size=8)
        return {"example": prompt, "example_tokens": digest.hexdigest()}


def find_prompt_change(made: Mapping[str, Any], began: Mapping[str, Any]) -> Problem | None:
    """What is different in a prompt that is made now from that of a run's record; a record without one fits."""
    old, new = began.get("example"), made["example"]
    if old is None or (old == new and began.get("example_tokens") == made["example_tokens"]):
        return None
    at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    shown = f"{old[at : at + 40]!r} -> {new[at : at + 40]!r}" if old != new else "same text, other tokens"
    cause = f"it is not the one that this run began with (old -> new, where they differ: {shown})"
    fix = "put the old chat template and tokenizer back, or set another output_dir for a new run"
    return Problem("the prompt", "a different one now", "the prompt that the run began with", fix, cause)


def build_prompts(
    problems: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_length: int,
    settings: PromptSettings | None = None,
    batch_size: int = 1000,
) -> tuple[Dataset, int]:
    """Add the column `prompt` and drop the rows whose prompt is too long.

    Args:
        problems: rows of the task.
        task: what is asked.
        tokenizer: the policy's tokenizer.
        max_prompt_length: in tokens, special tokens included, as TRL will count them.
        settings: those of the run.
        batch_size: prompts tokenised at a time.

    Returns:
        the rows kept, in their order, and how many were dropped.

    Raises:
        PromptError: as `PromptWriter`, or if no row is left.
    """
    if not len(problems):
        raise PromptError("there are no problems to make prompts from", "name a data set that has some")
    writer = PromptWriter(tokenizer, task, settings)
    prompts = [writer.write(row) for row in rows_of(problems)]
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
    return problems.add_column("prompt", prompts).select(keep), dropped


def _check_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str, prefill: str) -> None:
    """Look at the tokens that TRL will make of a prompt (GRPOTrainer._tokenize_prompts, trl 1.16)."""
    if (count := _leading_bos(tokenizer, prompt)) > 1:
        raise PromptError(
            f"the prompt starts with {count} BOS tokens {tokenizer.bos_token!r} instead of one: {prompt[:80]!r}",
            "take one of them out of the chat template",
        )
    decoded = str(tokenizer.decode(tokenizer(text=prompt)["input_ids"], clean_up_tokenization_spaces=False))
    if not decoded.endswith(prefill):
        raise PromptError(
            f"the tokens of the prompt do not end in the prefill {prefill!r} but in {decoded[-80:]!r}",
            "give a tokenizer_name_or_path that keeps text as it is and adds no end token (add_eos_token: false)",
        )


def _leading_bos(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Count the BOS tokens at the front of a text's tokens."""
    token_ids = tokenizer(text=text)["input_ids"]
    return sum(1 for _ in takewhile(lambda token_id: token_id == tokenizer.bos_token_id, token_ids))
