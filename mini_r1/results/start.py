"""Whether RL has something to start from: the verdict on a model before GRPO, from its evaluation.

GRPO learns from groups whose completions are worth unequal rewards. A model that never solves a problem, or always
does, gives it none, however long it runs (as TinyZero reported of a 0.5 B base); a cold start comes first then.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mini_r1.runs.records import Interval, Result

ENOUGH = 0.05  # of the groups: below it a step of 16 groups has, on average, not one that is mixed
NEARLY_ALL = 0.95


@dataclass(frozen=True, slots=True)
class Start:
    """What RL would find.

    Attributes:
        cold_start: whether demonstrations should come first.
        words: why, as one line.
    """

    cold_start: bool
    words: str


def judge_start(metrics: Mapping[str, Interval], samples: int) -> Start | None:
    """The verdict on a model; None where one sample a problem says nothing about groups.

    Args:
        metrics: of its evaluation, shares from 0 to 1.
        samples: how many were drawn of each problem, which are the groups that are looked at.
    """
    if samples < 2 or not {"pass@1", "mixed", "format"} <= set(metrics):
        return None
    solved, mixed, in_format = (metrics[name].value for name in ("pass@1", "mixed", "format"))
    seen = f"{mixed:.1%} of groups of {samples} are mixed (pass@1 {solved:.1%}, format {in_format:.1%})"
    if mixed >= ENOUGH:
        return Start(False, f"RL has something to start from: {seen}")
    if solved >= NEARLY_ALL:
        return Start(False, f"RL has little left to teach: {seen}. Fix: harder problems")
    return Start(True, f"RL has next to nothing to start from: {seen}. Fix: a cold start first (scripts/run_sft.py)")


def start_of(result: Result) -> Start | None:
    """The verdict on the model of a result."""
    return judge_start(result.metrics, int(result.settings.get("samples") or 0))
