"""GRPOTrainer without most of its padding: the same loss and the same gradient, in less time.

TRL pads all completions of a generation batch to the longest, and computes log-probabilities on all of it. Here each
batch is cut to its own longest completion; and where the recipe asks for `length_buckets`, its rows are sorted by
length and computed in so many parts, each only as wide as it must be. benchmarks/results/padding.md has the gain.

Overrides one private method of TRL, `_get_per_token_logps_and_entropies`; tests/test_trimming.py fails when it moves.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOTrainer


class TrimmedGRPOTrainer(GRPOTrainer):
    """A GRPOTrainer for text that computes no log-probability of padding.

    Attributes:
        length_buckets: parts that a batch is computed in, by length of completion; 1 only cuts off common padding.
    """

    length_buckets = 1
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
