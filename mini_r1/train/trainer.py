"""GRPOTrainer without most of its padding: the same loss and the same gradient, in less time.

TRL pads all completions of a generation batch to the longest, and computes log-probabilities on all of it. Here each
batch is cut to its own longest completion; and where the recipe asks for `length_buckets`, its rows are sorted by
length and computed in so many parts, each only as wide as it must be. benchmarks/results/padding.md has the gain.

It also reports how much of what vLLM wrote TRL lets count (`mini_r1.train.sample_weights`).

Uses three private names of TRL: it overrides `_get_per_token_logps_and_entropies` and `_generate_and_score_completions`
and adds to `_metrics`; tests/test_trainer.py fails when one of them moves.
"""

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOTrainer

from mini_r1.train.sample_weights import WARN_ABOVE, count_out_of_bounds, metric_name, warning

logger = logging.getLogger(__name__)


class TrimmedGRPOTrainer(GRPOTrainer):
    """A GRPOTrainer for text that computes no log-probability of padding.

    Attributes:
        length_buckets: parts that a batch is computed in, by length of completion; 1 only cuts off common padding.
    """

    length_buckets = 1
    _has_warned_of_weights = False
    args: Any  # a GRPOConfig, typed as TrainingArguments by transformers
    model: Any  # typed as optional by transformers; GRPOTrainer always has one

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As in TRL: (batch, logits_to_keep) log-probabilities, entropies, and an auxiliary loss, here always None."""
        # A completion's own mask ends with its end token, so its sum is its length.
        lengths = attention_mask[:, -logits_to_keep:].sum(dim=1)
        order = lengths.argsort(descending=True)
        logps, entropies = [], []
        for part in order.tensor_split(self.length_buckets):
            if not len(part):
                continue
            width = max(1, int(lengths[part].max()))
            surplus = logits_to_keep - width
            columns = slice(0, input_ids.shape[1] - surplus)
            part_logps, part_entropies, _ = super()._get_per_token_logps_and_entropies(
                model, input_ids[part, columns], attention_mask[part, columns], width, **kwargs
            )
            logps.append(pad(part_logps, (0, surplus)))
            if part_entropies is not None:
                entropies.append(pad(part_entropies, (0, surplus)))
        back = order.argsort()
        return torch.cat(logps)[back], torch.cat(entropies)[back] if entropies else None, None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """As in TRL; also logs the share of vLLM's samples that is zeroed or truncated, and warns once if high."""
        batch = super()._generate_and_score_completions(inputs)
        counted = count_out_of_bounds(batch, self.args)
        if counted is not None:
            beyond, total = self.accelerator.gather(counted[None]).sum(dim=0).tolist()
            share = beyond / max(total, 1)
            self._metrics["train" if self.model.training else "eval"][metric_name(self.args)].append(share)
            if share > WARN_ABOVE and not self._has_warned_of_weights and self.accelerator.is_main_process:
                logger.warning(warning(share, self.args))
            self._has_warned_of_weights |= share > WARN_ABOVE
        return batch
