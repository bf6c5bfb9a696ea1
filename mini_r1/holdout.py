"""Which puzzles a run holds out: the one function that decides it, and what a run's record says of its data.

The trainer, the evaluation and whoever else asks for "the held-out puzzles" go through `hold_out`. The settings come
from the recipe while training and from the run's own record afterwards, so that nobody has to repeat them. The record
also has a digest of each side: data that have changed since (a file that was edited, a branch of the Hub that has moved
on) are found out instead of being measured on.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from datasets import Dataset

from mini_r1.countdown import DEFAULT_DATASET, Key, load_countdown, puzzle_key, split_train_test
from mini_r1.problems import Problem, UserError
from mini_r1.recipe import ScriptArguments

Record = dict[str, Any]


class DataError(UserError, ValueError):
    """Data that are not those of the run, or too few; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What decides which puzzles there are and on which side of the split each one is.

    Attributes:
        dataset: the Hub id, path or `generated:WORLD`, as `load_countdown` takes it.
        split, revision: those of a Hub data set or folder.
        max_samples: how many puzzles are used at most, before the split.
        test_size: the share of the puzzles that is held out.
        split_seed: the seed of choice and split.
    """

    dataset: str = DEFAULT_DATASET
    split: str = "train"
    revision: str | None = None
    max_samples: int = 50_000
    test_size: float = 0.1
    split_seed: int = 42

    @classmethod
    def of(cls, script: ScriptArguments) -> "DataSettings":
        """The settings of a recipe."""
        return cls(
            dataset=script.dataset_id_or_path,
            split=script.dataset_split,
            revision=script.dataset_revision,
            max_samples=script.max_samples,
            test_size=script.test_size,
            split_seed=script.split_seed,
        )

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "DataSettings":
        """The settings in the part `data` of a record; a key that it does not have keeps its default.

        Raises:
            KeyError: if it does not even name a data set.
        """
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**(known | {"dataset": str(data["dataset"])}))


@dataclass(frozen=True)
class Sides:
    """The two sides of a split: the puzzles to train on, and the held-out ones, in the order of their source."""

    settings: DataSettings
    train: Dataset
    held_out: Dataset

    def record(self) -> Record:
        """The settings, with the size and the digest of both sides; JSON-able."""
        return asdict(self.settings) | {
            "train_puzzles": len(self.train),
            "held_out_puzzles": len(self.held_out),
            "train_digest": digest(puzzle_keys(self.train)),
            "held_out_digest": digest(sorted(set(puzzle_keys(self.held_out)))),
        }


def hold_out(settings: DataSettings) -> Sides:
    """Load the puzzles and split them; no puzzle is on both sides, in whatever order its numbers are given.

    Raises:
        ValueError, OSError: as `load_countdown` and `split_train_test`.
    """
    puzzles = load_countdown(
        settings.dataset,
        split=settings.split,
        max_samples=settings.max_samples,
        seed=settings.split_seed,
        revision=settings.revision,
    )
    sides = split_train_test(puzzles, settings.test_size, settings.split_seed)
    return Sides(settings, sides["train"], sides["test"])


def puzzle_keys(puzzles: Dataset) -> list[Key]:
    """What makes each row the same puzzle as another: see `puzzle_key`."""
    return [puzzle_key(nums, target) for nums, target in zip(puzzles["nums"][:], puzzles["target"][:], strict=True)]


def digest(keys: Iterable[Key]) -> str:
    """A short text that is another one for other puzzles, or for the same in another order.

    >>> digest([((1, 2, 3), 6)]) == digest([((1, 2, 3), 7)])
    False
    """
    total = hashlib.blake2b(digest_size=16)
    for nums, target in keys:
        total.update(f"{','.join(map(str, nums))}:{target};".encode())
    return total.hexdigest()


def check_unchanged(sides: Sides, recorded: Mapping[str, Any]) -> None:
    """Compare the puzzles that are there now with those that a run recorded.

    Raises:
        DataError: if they differ; naming the data set and how to get the old ones back.
    """
    if problem := find_change(sides, recorded):
        raise DataError(str(problem))


def find_change(sides: Sides, recorded: Mapping[str, Any]) -> Problem | None:
    """What is different in the puzzles that are there now from those that a run recorded."""
    now = sides.record()
    changed = [
        name
        for name, key in (("training", "train_digest"), ("held-out", "held_out_digest"))
        if recorded.get(key) not in (None, now[key])
    ]
    if not changed:
        return None
    cause = (
        f"the data set has changed since the run began: its {' and '.join(changed)} puzzles are others now "
        f"({now['train_puzzles']} to train on and {now['held_out_puzzles']} held out; recorded: "
        f"{recorded.get('train_puzzles')} and {recorded.get('held_out_puzzles')})"
    )
    fix = (
        "restore the old data (for one from the Hub, name its commit with dataset_revision), or start a new run in "
        "another output_dir"
    )
    return Problem("dataset_id_or_path", sides.settings.dataset, "the puzzles that the run began with", fix, cause)
