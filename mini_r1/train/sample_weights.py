"""How much of vLLM's completions still counts in the loss, once TRL has weighted them by its importance ratio.

TRL weights the loss by trainer's over vLLM's probability, per token or per completion, and truncates the weight at a
bound or zeroes what is beyond. That is silent: with bf16 and long completions a product over all tokens is soon beyond
any bound, and most of a batch may count nothing (https://github.com/huggingface/trl/issues/4772).
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from trl import GRPOConfig

logger = logging.getLogger(__name__)

WARN_ABOVE = 0.05
ZEROED, TRUNCATED = "sampling/share_zeroed", "sampling/share_truncated"


def metric_name(training: GRPOConfig) -> str:
    """What the run's mode does to a weight out of bounds."""
    return ZEROED if training.vllm_importance_sampling_mode.endswith("_mask") else TRUNCATED


def count_out_of_bounds(batch: Mapping[str, Any], training: GRPOConfig) -> Tensor | None:
    """How many weights of a batch are zeroed or truncated, of how many: a tensor of two; None without weights.

    Args:
        batch: what TRL trains on. Its `importance_sampling_ratio`, after zeroing or truncating, is of shape
            (completions, tokens) or, in the modes per sequence, (completions, 1). Masked tokens are not counted.
    """
    weights: Tensor | None = batch.get("importance_sampling_ratio")
    if weights is None:
        return None
    counts = batch["completion_mask"].bool()
    if weights.shape[1] == 1 and training.vllm_importance_sampling_mode.startswith("sequence_"):
        counts = counts.any(dim=1, keepdim=True)
    if metric_name(training) == ZEROED:
        beyond = weights == 0
    else:
        low, high = training.vllm_importance_sampling_clip_min, training.vllm_importance_sampling_clip_max
        beyond = torch.zeros_like(counts)
        beyond |= weights >= high if high is not None else False
        beyond |= weights <= low if low is not None else False
    return torch.stack([(beyond & counts).sum(), counts.sum()])


def warning(share: float, training: GRPOConfig) -> str:
    """What to say of a share that is too high, and what to change."""
    mode, bound = training.vllm_importance_sampling_mode, training.vllm_importance_sampling_clip_max
    of_what = "completions" if mode.startswith("sequence_") else "tokens"
    is_zeroed = metric_name(training) == ZEROED
    done = "count nothing in the loss" if is_zeroed else "have their weight truncated"
    fix = "set vllm_importance_sampling_mode: token_truncate and vllm_importance_sampling_clip_max: 2.0"
    if mode == "token_truncate":
        fix = "check that vllm_server.log has no errors and that the server computes in the trainer's number format"
    return (
        f"{share:.0%} of the {of_what} of this step {done}: vLLM and the trainer disagree about their probability "
        f"(vllm_importance_sampling_mode: {mode}, bound {bound}). Fix: {fix}"
    )
