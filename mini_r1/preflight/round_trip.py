"""Whether a right answer counts: writes one as a policy would, reads it back as the trainer does, and scores it.

Two faults of a tokenizer keep every reward at 0 for a complete run, without an error: tags of the answer that are
special tokens, which decoding leaves out, and an end of turn at which generation does not stop. Both show in seconds.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from mini_r1.program.problems import Problem
from mini_r1.prompts.build import PromptFormat
from mini_r1.tasks.task import CORRECT, Task


@dataclass(frozen=True)
class StopTokens:
    """The tokens at which generation stops, and who says so.

    Attributes:
        ids: their numbers.
        source: for a message, such as "the tokenizer and the model's generation_config".
    """

    ids: frozenset[int]
    source: str

    def names(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The tokens as text."""
        return ", ".join(repr(tokenizer.decode([number])) for number in sorted(self.ids)) or "none"


def stop_tokens(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None, colocated: PreTrainedTokenizerBase | None
) -> StopTokens:
    """Where completions end, as in GRPOTrainer and vLLM (trl 1.16, vllm 0.31).

    Args:
        tokenizer: the run's tokenizer; GRPOTrainer takes its end token for one in any case.
        generation: the model's generation_config, if it is known.
        colocated: the model's own tokenizer where vLLM runs in the trainer: it stops at the end token of that one.
    """
    declared: Any = generation.eos_token_id if generation is not None else None
    ends = {*declared} if isinstance(declared, list) else {declared}
    trainer = ends | {tokenizer.eos_token_id}
    if colocated is None:
        return StopTokens(frozenset(trainer - {None}), "the tokenizer's end token and the model's generation_config")
    engine = ends | {colocated.eos_token_id}
    # A completion that ends in a token unknown to the trainer counts as cut off.
    source = "the end token of the model's own tokenizer, which vLLM uses, and the model's generation_config"
    return StopTokens(frozenset((trainer & engine) - {None}), source)


def generation_config(name: str, revision: str | None, config: PreTrainedConfig) -> GenerationConfig:
    """A model's generation_config.json, or what its config.json says of generation, as `from_pretrained` takes it."""
    try:
        return GenerationConfig.from_pretrained(name, revision=revision or "main")
    except OSError:
        return GenerationConfig.from_model_config(config)


def check_round_trip(form: PromptFormat, stops: StopTokens, task: Task) -> Problem | None:
    """Write the task's solved example, end it as the prompt's format does, cut and decode it, have it judged.

    Returns:
        what would keep every reward at 0, if anything.
    """
    tokenizer = form.tokenizer
    row, completion = task.solved_example()
    answer = _token_ids(tokenizer, completion)
    if early := sorted(stops.ids & set(answer)):
        text = tokenizer.decode(early[:1])
        return _problem(tokenizer, f"generation stops at {text!r}, which is part of a right answer", _LEAVE_TAGS)
    end = _token_ids(tokenizer, form.end)
    stop = next((place for place, token in enumerate(end, start=1) if token in stops.ids), None)
    if stop is None:
        return _endless(form, stops)
    written = answer + end[:stop]
    read = str(tokenizer.batch_decode([written], skip_special_tokens=True)[0])
    if task.judge(read, row).reason == CORRECT and task.in_format(read):
        return None
    return _misread(tokenizer, written, completion, read)


_LEAVE_TAGS = "give a tokenizer_name_or_path whose end token is one that no answer holds"


def _problem(tokenizer: PreTrainedTokenizerBase, cause: str, fix: str) -> Problem:
    allowed = "one that returns a right answer unchanged, and ends it"
    return Problem("the tokenizer", repr(tokenizer.name_or_path), allowed, fix, cause)


def _token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    token_ids: list[int] = tokenizer(text=text, add_special_tokens=False)["input_ids"]
    return token_ids


def _endless(form: PromptFormat, stops: StopTokens) -> Problem:
    cause = (
        f"{form.ends}, but generation stops only at {stops.names(form.tokenizer)} (from {stops.source}), so that every "
        "completion would run to its full length"
    )
    fix = "name the model's own tokenizer, or add its end token to eos_token_id in the model's generation_config.json"
    if form.settings.style != "base":
        fix = (
            "set prompt_style: base for a base model (many have this template without having learned it), take the "
            "instruction-tuned model, give its tokenizer as tokenizer_name_or_path, or add the template's end token to "
            "eos_token_id in the model's generation_config.json"
        )
    return _problem(form.tokenizer, cause, fix)


def _misread(tokenizer: PreTrainedTokenizerBase, written: Collection[int], completion: str, read: str) -> Problem:
    """What the decoded answer has lost: special tokens, characters that the tokenizer has no token for, or else."""
    left_out = {
        str(tokenizer.decode([token])) for token in written if not tokenizer.decode([token], skip_special_tokens=True)
    }
    tags = [tag for tag in ("<think>", "</think>", "<answer>", "</answer>") if tag in left_out]
    if tags:
        cause = f"{', '.join(tags)} are special tokens in it, which the trainer leaves out when it decodes a completion"
        fix = 'set "special": false for them in its tokenizer.json and tokenizer_config.json (added_tokens_decoder)'
    elif tokenizer.unk_token_id is not None and tokenizer.unk_token_id in written:
        cause = f"it has no tokens for some characters of an answer: {completion!r} comes back as {read!r}"
        fix = (
            "give a tokenizer_name_or_path that can spell digits, + - * / ( ) = and the tags, and a model trained on it"
        )
    else:
        cause = f"a right answer comes back changed: {completion!r} as {read!r}"
        fix = "give a tokenizer_name_or_path that keeps text as it is (no lower-casing, no clean-up of spaces)"
    return _problem(tokenizer, f"{cause}, so that every reward would be 0", f"{fix}, as another folder")
