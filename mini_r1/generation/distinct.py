"""The prompts of a batch, each once: GRPO's groups, and several samples of a puzzle, have the same one in each row."""

from torch import Tensor


def distinct_prompts(prompts: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What differs of a batch of prompts.

    Args:
        prompts: (rows, length) tokens, padded.
        mask: of the same shape, 1 for tokens that count.

    Returns:
        prompts, (distinct, length), with 0 where their mask, of the same shape, is 0; and for each row which one it is,
        (rows,).
    """
    padding = -1  # no token
    found, which = prompts.masked_fill(mask == 0, padding).unique(dim=0, return_inverse=True)
    return found.clamp(min=0), (found != padding).to(mask.dtype), which
