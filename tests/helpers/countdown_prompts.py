"""The prompt of one Countdown puzzle, as tests want it."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from mini_r1.prompts.build import PromptWriter
from mini_r1.prompts.settings import PromptSettings
from mini_r1.tasks.countdown.task import Countdown


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, nums: Sequence[int], target: int, settings: PromptSettings | None = None
) -> str:
    """Write the prompt of a single puzzle."""
    return PromptWriter(tokenizer, Countdown(), settings).write({"nums": list(nums), "target": target})
