"""Dynamic sampling: groups whose completions all got the same reward are replaced by groups of fresh problems.

Such a group has an advantage of 0 everywhere, and no gradient. DAPO (https://arxiv.org/abs/2503.14476) samples on until
the batch holds none; here the tries are bounded, so that a policy that solves everything or nothing comes to an end.
Each process replaces groups of its own. In a try, all processes generate equally many, because generation and scoring
are work that all have to take part in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

Batch = Mapping[str, Tensor]  # what TRL trains on: a row of each tensor per completion, or one number for all
LEFT = ("prompt_ids", "prompt_mask")  # padded on the left; everything else per token is padded on the right


@dataclass(frozen=True, slots=True)
class Resampled:
    """A batch after its tries, and what they came to on this process, in groups.

    Attributes:
        groups: in the batch.
        uniform: of them before the first try.
        replaced: of those.
        generated: in all tries together, on each process.
    """

    batch: Batch
    groups: int
    uniform: int
    replaced: int
    generated: int


def replace_uniform_groups(
    batch: Batch,
    generate: Callable[[int, int], Batch],
    highest: Callable[[int], int],
    tries: int,
    generations: int,
    pad_token: int,
) -> Resampled:
    """Try so often to replace the uniform groups of a batch; all processes must call this.

    Args:
        batch: the completions of one generation on this process, whole groups of `generations` rows one after another.
        generate: from the number of the try (1, 2, ...) and how many groups of fresh problems it takes, to their batch.
        highest: the highest of a number that each process has.
        tries: at most.
        generations: completions of a group.
        pad_token: fills up prompts and completions.
    """
    groups, generated = len(batch["advantages"]) // generations, 0
    uniform = left = groups - int(varied_groups(batch, generations).sum())
    for number in range(1, tries + 1):
        count = highest(left)
        if not count:
            break
        fresh = generate(number, count)
        slots = (~varied_groups(batch, generations)).nonzero().flatten()
        found = varied_groups(fresh, generations).nonzero().flatten()[: len(slots)]
        batch = put_groups(batch, slots[: len(found)], fresh, found, generations, pad_token)
        generated, left = generated + count, left - len(found)
    return Resampled(batch, groups, uniform, uniform - left, generated)


def varied_groups(batch: Batch, generations: int) -> Tensor:
    """Which groups have completions of different advantage, and so of different reward.

    Where all rewards are the same, their rounded mean may not be, and the advantages are then equal without being 0.

    Returns:
        (groups,) of booleans.
    """
    advantages = batch["advantages"].view(-1, generations)
    return advantages.amax(dim=1) != advantages.amin(dim=1)


def put_groups(
    batch: Batch, slots: Tensor, fresh: Batch, chosen: Tensor, generations: int, pad_token: int
) -> dict[str, Tensor]:
    """A batch with some groups of a fresh one in the place of its own; the rows are as wide as both need.

    Args:
        slots: (n,), the groups of `batch` to replace.
        chosen: (n,), the groups of `fresh` that take their place.
    """
    into, out = (_rows_of(groups, generations) for groups in (slots, chosen))
    merged = dict(batch)
    for name, old in batch.items():
        if not old.ndim:
            continue
        new = fresh[name]
        if old.ndim == 2:  # weights per completion have one column in both
            width = max(old.shape[1], new.shape[1])
            old, new = (_widen(name, values, width, pad_token) for values in (old, new))
        merged[name] = old.index_copy(0, into, new[out])
    return merged


def _rows_of(groups: Tensor, generations: int) -> Tensor:
    return (groups[:, None] * generations + torch.arange(generations, device=groups.device)).flatten()


def _widen(name: str, values: Tensor, width: int, pad_token: int) -> Tensor:
    """Fill up rows as TRL does: its importance ratio of padding is 1, and VESPO adds up the logarithms of them all."""
    missing = width - values.shape[1]
    fill = pad_token if name.endswith("_ids") else int(name == "importance_sampling_ratio")
    return pad(values, (missing, 0) if name in LEFT else (0, missing), value=fill)


def draw(problems: int, count: int, seed: Sequence[int], process: int, processes: int) -> list[int]:
    """Problems for one process, drawn by the seed alone; no two of the processes get the same if there are enough.

    >>> draw(100, 3, (42, 7, 1), process=1, processes=2) == draw(100, 5, (42, 7, 1), process=1, processes=2)[:3]
    True
    """
    order = np.random.default_rng(seed).permutation(problems)
    return [int(order[(process + turn * processes) % problems]) for turn in range(count)]
