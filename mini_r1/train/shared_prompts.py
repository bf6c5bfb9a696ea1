"""A group's prompt is read once, not once for each of its completions: the same log-probabilities and gradient.

GRPO writes several completions of each prompt, and each row of its batches has the prompt in front. Here the prompts of
a batch pass through the model once; their keys and values, through which the gradient flows back, are then given to
the rows that begin so.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mini_r1.generation.distinct import distinct_prompts
from mini_r1.train.resampling import Batch


class SharedPrompts:
    """Called as TRL calls a model for log-probabilities, with rows that have prompts of one batch.

    Args:
        model: the policy, or the reference; wrapped or not.
        prompts: (rows, prompt length) tokens, left-padded, of 2 or more.
        mask: of the same shape, 1 for tokens that count.
    """

    def __init__(self, model: Any, prompts: Tensor, mask: Tensor) -> None:
        # The last token of a prompt stays with the completions, since the first one's probability is said there.
        self.read = prompts.shape[1] - 1
        self.model = model
        self.prompts, self.mask, _ = distinct_prompts(prompts[:, : self.read], mask[:, : self.read])
        self.cache: DynamicCache | None = None

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **kwargs: Any) -> Any:
        """What the model gives for whole rows, (rows, prompt length + completion length), but only for completions."""
        if self.cache is None:
            self.cache = self.model(
                input_ids=self.prompts, attention_mask=self.mask, use_cache=True, logits_to_keep=1
            ).past_key_values
        mask = attention_mask[:, None, : self.read]
        same = (input_ids[:, None, : self.read] * mask == self.prompts) & (mask == self.mask)
        which = same.all(dim=2).int().argmax(dim=1)
        return self.model(
            input_ids=input_ids[:, self.read :],
            attention_mask=attention_mask,
            labels=labels[:, self.read :],
            past_key_values=_of_rows(self.cache, which),
            **kwargs,
        )


def _of_rows(cache: DynamicCache, which: Tensor) -> DynamicCache:
    """Another cache, with these rows of it."""
    rows = DynamicCache()
    for index, layer in enumerate(cast(list[DynamicLayer], cache.layers)):
        keys, values = cast(Tensor, layer.keys), cast(Tensor, layer.values)
        rows.update(keys.index_select(0, which), values.index_select(0, which), index)
    return rows


def by_prompt(batches: Sequence[Batch], per_update: int) -> list[Batch]:
    """Micro-batches in which the completions of a prompt are together, so that few of them have to read it.

    TRL shuffles the completions of a generation. Each update keeps its own; which of its micro-batches they are in
    makes no difference but with `loss_type: bnpo`, which weighs by micro-batch.

    Args:
        batches: those of a generation, of equal size.
        per_update: micro-batches that an update takes.
    """
    sorted_batches: list[Batch] = []
    for start in range(0, len(batches), per_update):
        parts = batches[start : start + per_update]
        prompts, mask = (torch.cat([part[name] for part in parts]) for name in ("prompt_ids", "prompt_mask"))
        order = distinct_prompts(prompts, mask)[2].argsort(stable=True)
        for rows in order.tensor_split(len(parts)):
            sorted_batches.append(
                {
                    name: torch.cat([part[name] for part in parts])[rows] if value.dim() else value
                    for name, value in parts[0].items()
                }
            )
    return sorted_batches
