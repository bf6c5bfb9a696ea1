"""Numbers with an honest interval: pass@k, and the bootstrap over puzzles. Nothing here needs torch.

The samples of one puzzle resemble each other (an easy puzzle is solved every time), so they are no independent
observations. Every interval therefore resamples whole puzzles, with all their samples: a cluster bootstrap.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mini_r1.runs.records import Interval

RESAMPLES = 2_000
PERCENTILES = (2.5, 97.5)  # of a 95 % interval

Array: TypeAlias = NDArray[np.float64]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate, without bias, the probability that one of `k` samples is right, from `n` samples with `c` right ones.

    1 - C(n-c, k) / C(n, k), as a product of factors below 1 so that nothing overflows: Chen et al. 2021
    (https://arxiv.org/abs/2107.03374), equation 1. The plug-in 1 - (1 - c/n)^k is biased: too low.

    >>> pass_at_k(n=4, c=1, k=1), pass_at_k(n=4, c=1, k=2), pass_at_k(n=4, c=1, k=4)
    (0.25, 0.5, 1.0)
    >>> pass_at_k(n=1000, c=0, k=500)
    0.0

    Raises:
        ValueError: unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} samples: k has to be between 1 and {n}")
    if not 0 <= c <= n:
        raise ValueError(f"{c} of {n} samples cannot be right")
    if n - c < k:  # every choice of k samples has a right one among them
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def bootstrap_ratios(
    ratios: Mapping[str, tuple[ArrayLike, ArrayLike]], *, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Estimate sum(numerators) / sum(denominators) of each metric, with its percentile bootstrap interval.

    A mean over puzzles is a ratio with ones below; a ratio of sums, like right equations to equations, is resampled
    above and below the line together. All metrics share the resamples, of 16 kB a puzzle. Percentile intervals are
    Efron & Tibshirani 1993, chapter 13. Where all puzzles agree the interval has no width: the bootstrap cannot know
    of what was never seen. A metric whose denominators are all 0 has no value and is left out.

    >>> bootstrap_ratios({"solved": ([0, 1, 1, 0], [1, 1, 1, 1])}, seed=0)["solved"]
    Interval(value=0.5, low=0.0, high=1.0)

    Args:
        ratios: numerators and denominators of each metric, both of shape (puzzles,).
        seed: of the resamples.
        resamples: how many.

    Raises:
        ValueError: if there are no puzzles, or the shapes differ.
    """
    names = list(ratios)
    numerators, denominators = (_stack([ratios[name][side] for name in names]) for side in (0, 1))
    if numerators.shape != denominators.shape or not numerators.size:
        raise ValueError(f"no ratios to be made of {numerators.shape} and {denominators.shape} (puzzles, metrics)")
    puzzles = len(numerators)
    rng = np.random.default_rng(seed)
    # How often each puzzle is drawn, (resamples, puzzles): the same as drawing indices, but a product sums it all.
    draws = rng.multinomial(puzzles, np.full(puzzles, 1 / puzzles), size=resamples).astype(np.float64)
    resampled = _divide(draws @ numerators, draws @ denominators)  # (resamples, metrics)
    values = _divide(numerators.sum(0), denominators.sum(0))
    measured = [(name, i) for i, name in enumerate(names) if not np.isnan(values[i])]
    return {name: _interval(values[i], resampled[:, i]) for name, i in measured}


def paired_difference(first: Sequence[float], second: Sequence[float], *, seed: int) -> Interval:
    """Estimate mean(second) - mean(first) where both scored the same puzzles in the same order.

    A resample keeps the two scores of a puzzle together, so what is hard for both does not blur the comparison.

    >>> paired_difference([0.0, 0.5, 0.75], [0.25, 0.75, 1.0], seed=0)  # hard or not, better by as much
    Interval(value=0.25, low=0.25, high=0.25)

    Raises:
        ValueError: if the lengths differ.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return bootstrap_ratios({"difference": (differences, [1.0] * len(differences))}, seed=seed)["difference"]


def _stack(columns: Sequence[ArrayLike]) -> Array:
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _divide(numerators: Array, denominators: Array) -> Array:
    """Divide, NaN where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.full_like(numerators, np.nan), where=denominators != 0)


def _interval(value: float, resampled: Array) -> Interval:
    low, high = np.nanpercentile(resampled, PERCENTILES)  # a resample may have drawn no puzzle with a denominator
    return Interval(float(value), float(low), float(high))
