"""The R1 prompt: a chat whose assistant turn is already begun, so that the completion starts inside `<think>`.

The trainer gets each prompt as text, not as messages: TRL opens a new assistant turn after messages, which would end
the prefill. It tokenises the text with `tokenizer(text=prompt)`, so a tokenizer that puts a BOS token in front would
double the one that its chat template wrote; `render_prompt` takes the template's away in that case.
"""

import logging
from collections.abc import Sequence
from itertools import takewhile

from datasets import Dataset
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

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
ASSISTANT_PREFILL = "Let me solve this step by step.\n<think>"


def chat_messages(nums: Sequence[int], target: int) -> list[dict[str, str]]:
    """Return the system, user and begun assistant message of one puzzle."""
    return [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": USER_PROMPT.format(nums=list(nums), target=target)},
        {"role": "assistant", "content": ASSISTANT_PREFILL},
    ]


def render_prompt(tokenizer: PreTrainedTokenizerBase, nums: Sequence[int], target: int) -> str:
    """Render the prompt of one puzzle with the tokenizer's chat template.

    Returns:
        text that ends in `ASSISTANT_PREFILL` and that `tokenizer(text=...)` gives at most one BOS token.

    Raises:
        ValueError: if the tokenizer has no chat template, the template refuses the messages or does not leave the
            prefill last, or the tokens come out with two BOS tokens or something after the prefill.
    """
    prompt = _render(tokenizer, nums, target)
    _check_tokens(tokenizer, prompt)
    return prompt


def build_prompts(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_prompt_length: int, batch_size: int = 1000
) -> tuple[Dataset, int]:
    """Add the column `prompt` and drop the rows whose prompt is too long.

    Args:
        dataset: rows with nums and target.
        tokenizer: of the policy.
        max_prompt_length: in tokens, special tokens included, as TRL will count them.
        batch_size: prompts tokenised at a time.

    Returns:
        the rows kept, in their order, and how many were dropped.

    Raises:
        ValueError: as `render_prompt`, or if no row is left.
    """
    prompts = [_render(tokenizer, nums, t) for nums, t in zip(dataset["nums"], dataset["target"], strict=True)]
    if not prompts:
        raise ValueError("there are no puzzles to make prompts of")
    lengths: list[int] = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(text=prompts[start : start + batch_size])["input_ids"]
        lengths.extend(len(token_ids) for token_ids in batch)
    _check_tokens(tokenizer, prompts[0])  # the others differ in their numbers only
    keep = [index for index, length in enumerate(lengths) if length <= max_prompt_length]
    dropped = len(prompts) - len(keep)
    if not keep:
        raise ValueError(
            f"all {dropped} prompts are longer than max_prompt_length={max_prompt_length} tokens: the shortest has "
            f"{min(lengths)}, the longest {max(lengths)}. Raise max_prompt_length to {max(lengths)} to keep them all"
        )
    level = logging.WARNING if dropped else logging.INFO
    logger.log(level, "prompts: %d kept, %d dropped (over %d tokens)", len(keep), dropped, max_prompt_length)
    return dataset.add_column("prompt", prompts).select(keep), dropped


def _render(tokenizer: PreTrainedTokenizerBase, nums: Sequence[int], target: int) -> str:
    """Render one prompt and check its text; its tokens are left to `_check_tokens`, which costs more."""
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template: use an instruction-tuned model, or set "
            f"tokenizer.chat_template"
        )
    try:
        prompt = str(
            tokenizer.apply_chat_template(chat_messages(nums, target), tokenize=False, continue_final_message=True)
        )
    except (TemplateError, ValueError) as error:
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} does not take a system, a user and a begun assistant "
            f"message: {error}"
        ) from error
    if not prompt.endswith(ASSISTANT_PREFILL):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} does not leave the prefill {ASSISTANT_PREFILL!r} last: "
            f"the prompt ends in {prompt[-80:]!r}"
        )
    bos = tokenizer.bos_token
    if bos and prompt.startswith(bos) and _leading_bos(tokenizer, "a") > 0:
        return prompt.removeprefix(bos)
    return prompt


def _check_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    """Look at the tokens that TRL will make of a prompt (GRPOTrainer._tokenize_prompts, trl 1.16)."""
    if (count := _leading_bos(tokenizer, prompt)) > 1:
        raise ValueError(
            f"the prompt starts with {count} BOS tokens {tokenizer.bos_token!r} instead of one: {prompt[:80]!r}"
        )
    decoded = str(tokenizer.decode(tokenizer(text=prompt)["input_ids"], clean_up_tokenization_spaces=False))
    if not decoded.endswith(ASSISTANT_PREFILL):
        raise ValueError(
            f"the tokens of the prompt do not end in the prefill {ASSISTANT_PREFILL!r} but in {decoded[-80:]!r}: does "
            f"the tokenizer add an end token (add_eos_token)?"
        )


def _leading_bos(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Count the BOS tokens at the front of a text's tokens."""
    token_ids = tokenizer(text=text)["input_ids"]
    return sum(1 for _ in takewhile(lambda token_id: token_id == tokenizer.bos_token_id, token_ids))
