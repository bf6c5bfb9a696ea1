"""How much of vLLM's completions still counts in the loss, once TRL has weighted them by its importance ratio.

TRL weights the loss by trainer's over vLLM's probability, per token or per completion, and truncates the weight at a
bound or zeroes what is beyond. That is silent: with bf16 and long completions a product over all tokens is soon beyond
any bound, and most of a batch may count nothing (https://github.com/huggingface/trl/issues/4772).

TRL takes the trainer's probabilities from a pass of their own, before the loss. Where all completions are of the policy
as it is, the pass of the loss finds the same ones, and with `skip_old_logps` the weights are made of these.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

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


def importance_weights(differences: Tensor, training: GRPOConfig) -> Tensor:
    """TRL's weights, truncated or zeroed as the run's mode says.

    Args:
        differences: (completions, tokens), trainer's less vLLM's log-probability; 0 for a token that does not count.

    Returns:
        (completions, tokens), or (completions, 1) in the modes per sequence.
    """
    if training.vllm_importance_sampling_mode.startswith("sequence_"):
        differences = differences.sum(dim=-1, keepdim=True)
    weights = differences.exp()
    low, high = training.vllm_importance_sampling_clip_min, training.vllm_importance_sampling_clip_max
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if metric_name(training) == ZEROED:
        return weights.masked_fill((weights < low) | (weights > high), 0.0)
    return weights.clamp(min=low, max=high)


@dataclass
class WeightsInLoss:
    """Makes the weights while the loss is computed, and adds up what is logged of them until the update.

    Attributes:
        totals: (6,), of absolute differences their sum and number, of weights likewise, of lost and all weights the
            number.
        extremes: (3,), the highest difference, the lowest weight, negated, and the highest one.
    """

    totals: Tensor | None = None
    extremes: Tensor | None = None

    def weigh(self, inputs: dict[str, Any], logps: Tensor, known: Tensor, training: GRPOConfig) -> None:
        """Put the weights where TRL's loss looks for them: `importance_sampling_ratio`.

        Args:
            inputs: of the loss.
            logps: (completions, tokens), the trainer's.
            known: (completions,), which of them were computed. The others, with an advantage of 0, get a weight of 1.
        """
        mask = inputs["completion_mask"] * known[:, None]
        counts = mask.bool()
        apart = logps.detach() - inputs["sampling_per_token_logps"]
        # What vLLM could not score is NaN: no difference, so that its weight is 1.
        differences = torch.where(counts, apart, 0.0).nan_to_num(nan=0.0)
        weights = inputs["importance_sampling_ratio"] = importance_weights(differences, training)
        distances = apart[counts & ~apart.isnan()].abs()
        weights = weights[counts] if weights.shape == counts.shape else weights[known]
        lost = count_out_of_bounds({**inputs, "completion_mask": mask}, training)
        sums = [value for some in (distances, weights) for value in (some.sum(), some.new_tensor(some.numel()))]
        totals = torch.stack([*sums, *cast(Tensor, lost)])
        extremes = torch.stack([highest(distances), highest(-weights), highest(weights)])
        self.totals = totals if self.totals is None else self.totals + totals
        self.extremes = extremes if self.extremes is None else self.extremes.maximum(extremes)


def highest(values: Tensor) -> Tensor:
    """The maximum, and -infinity of no values."""
    return values.max() if values.numel() else values.new_tensor(-math.inf)


def to_log(totals: Tensor, extremes: Tensor, training: GRPOConfig) -> dict[str, float]:
    """The metrics that TRL logs of differences and weights, and the share of weights that is lost, by their names.

    Args:
        totals: (6,), as in `WeightsInLoss`, over all processes.
        extremes: (3,), likewise.
    """
    distance, distances, weight, weights, lost, counted = totals.tolist()
    farthest, lowest, heaviest = extremes.nan_to_num(neginf=0.0).tolist()
    ratio = "sampling/importance_sampling_ratio"
    return {
        "sampling/sampling_logp_difference/mean": distance / max(distances, 1),
        "sampling/sampling_logp_difference/max": farthest,
        f"{ratio}/min": -lowest,
        f"{ratio}/mean": weight / max(weights, 1),
        f"{ratio}/max": heaviest,
        metric_name(training): lost / max(counted, 1),
    }
