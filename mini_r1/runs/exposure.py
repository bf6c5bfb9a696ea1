"""Whether a model was trained on the problems it will be measured on, according to its run's record.

"Held out" is said of a result only where this has found it true. A model that no run of this project made, such as one
from the Hub, may have seen anything: that is "unknown", and is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datasets import Dataset

from mini_r1.program.problems import first_line
from mini_r1.runs.holdout import DataError, DataSettings, Sides, check_unchanged, hold_out
from mini_r1.runs.identity import RunRecord

Verdict = Literal[True, False, "unknown"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is known of a model and the problems it is measured on.

    Attributes:
        held_out: True if no recorded training used any of them, False if one did, "unknown" if nobody can say.
        why: a sentence for people; empty where there is nothing to warn of.
    """

    held_out: Verdict
    why: str = ""


def examine_exposure(model: str, record: RunRecord | None, puzzles: Dataset, sides: Sides) -> Exposure:
    """Compare problems with all the data that a model is known to have been trained on.

    Args:
        model: how messages name it.
        record: what its run recorded (`mini_r1.runs.identity.find_record`).
        puzzles: those to evaluate on, taken from `sides`.
        sides: the split that they were taken from, which saves loading the same data again.

    Raises:
        DataError: if the model's own run trained on any of them, or its data have changed since.
    """
    if record is None:
        return Exposure("unknown", f"{model} has no record of a training: nobody can say whether it has seen them")
    if record.data:
        seen = _seen(record.data, puzzles, sides)
        if isinstance(seen, str):
            return Exposure("unknown", f"what {model} was trained on can't be loaded: {seen}")
        if seen:
            raise DataError(
                f"{seen} of the {len(puzzles)} problems were trained on by {model} (its record: "
                f"{_describe(record.data)}), so this would not measure what it has learned. Fix: leave out the options "
                f"that choose other problems: then they are those that its run held out"
            )
    doubts = []
    for data in record.lineage:
        seen = _seen(data, puzzles, sides)
        before = str(data.get("model", "its base"))
        builds = "" if before == model else f", on which {model} builds"
        if isinstance(seen, str):
            return Exposure("unknown", f"what {before} was trained on{builds}, can't be loaded: {seen}")
        if seen:
            doubts.append(
                f"{seen} of the {len(puzzles)} problems were trained on by {before} ({_describe(data)}){builds}"
            )
    return Exposure(not doubts, "; ".join(doubts))


def _seen(data: Mapping[str, Any], puzzles: Dataset, sides: Sides) -> int | str:
    """How many of the puzzles a training used, or the reason why that can't be known.

    Raises:
        DataError: if the data are those of `sides`, and have changed since.
    """
    settings, recorded, here = DataSettings.read(data), data.get("train_digest"), sides.record()["train_digest"]
    theirs = sides
    if recorded != here and (recorded is not None or settings != sides.settings):
        if settings == sides.settings:
            check_unchanged(sides, data)
        try:
            theirs = hold_out(settings)
        except (OSError, ValueError) as error:
            return first_line(error)
        if recorded not in (None, theirs.record()["train_digest"]):
            return f"{settings.dataset!r} has changed since"
    trained = set(theirs.keys(theirs.train))
    return sum(key in trained for key in sides.keys(puzzles))


def _describe(data: Mapping[str, Any]) -> str:
    names = ("dataset", "split", "revision", "max_samples", "test_size", "split_seed")
    return ", ".join(f"{name} {data[name]}" for name in names if data.get(name) is not None)
