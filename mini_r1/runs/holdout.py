"""Which problems a run holds out: the one function that decides it, and what a run's record says about its data.

The trainer, the evaluation and whoever else asks for "the held-out problems" go through `hold_out`. The settings come
from the recipe while training and from the run's own record afterwards, so that nobody has to repeat them. The record
also has a digest of each side: data that have changed since (a file that was edited, a branch of the Hub that has moved
on) are found out instead of being measured on.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from datasets import Dataset

from mini_r1.program.problems import Problem, UserError
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.tasks.registry import DEFAULT_TASK, task_of
from mini_r1.tasks.task import Source, Task, rows_of

logger = logging.getLogger(__name__)

Record = dict[str, Any]


class DataError(UserError, ValueError):
    """Data that are not those of the run, or too few; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What decides which problems there are and on which side of the split each one is.

    Attributes:
        dataset: the Hub id, path or whatever else the task takes, such as Countdown's `generated:WORLD`.
        split, revision: those of a Hub data set or folder.
        max_samples: how many problems are used at most, before the split.
        test_size: the share of the problems that is held out.
        split_seed: the seed of choice and split.
        task, task_config: the task that the problems are of.
    """

    dataset: str
    split: str = "train"
    revision: str | None = None
    max_samples: int = 50_000
    test_size: float = 0.1
    split_seed: int = 42
    task: str = DEFAULT_TASK
    task_config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, script: ScriptArguments) -> "DataSettings":
        """The settings of a recipe."""
        return cls(
            dataset=script.dataset_id_or_path or task_of(script.task, script.task_config).default_source,
            split=script.dataset_split,
            revision=script.dataset_revision,
            max_samples=script.max_samples,
            test_size=script.test_size,
            split_seed=script.split_seed,
            task=script.task,
            task_config=dict(script.task_config or {}),
        )

    def make_task(self) -> Task:
        """The task, with its configuration.

        Raises:
            TaskError: there is no such task.
        """
        return task_of(self.task, self.task_config)

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
    """The two sides of a split: the problems to train on, and the held-out ones, in the order of their source."""

    settings: DataSettings
    task: Task
    train: Dataset
    held_out: Dataset

    def record(self) -> Record:
        """The settings, with the size and the digest of both sides; JSON-able."""
        return dict(self._record)

    @cached_property
    def _record(self) -> Record:
        return asdict(self.settings) | {
            "train_puzzles": len(self.train),
            "held_out_puzzles": len(self.held_out),
            "train_digest": digest(self.keys(self.train)),
            "held_out_digest": digest(sorted(set(self.keys(self.held_out)))),
        }

    def keys(self, problems: Dataset) -> list[str]:
        """What makes each row the same problem as another."""
        return keys_of(self.task, problems)


def hold_out(settings: DataSettings) -> Sides:
    """Load the problems and split them; equal problems (`Task.key`) are never on both sides.

    Raises:
        ValueError, OSError: as `Task.load` and `split_train_test`.
    """
    task = settings.make_task()
    source = Source(settings.dataset, settings.split, settings.revision, settings.max_samples, settings.split_seed)
    problems = task.load(source)
    train, held_out = split_train_test(problems, keys_of(task, problems), settings.test_size, settings.split_seed)
    return Sides(settings, task, train, held_out)


def keys_of(task: Task, problems: Dataset) -> list[str]:
    """The key of each row."""
    return [task.key(row) for row in rows_of(problems)]


def split_train_test(
    problems: Dataset, keys: Sequence[str], test_size: float = 0.1, seed: int = 42
) -> tuple[Dataset, Dataset]:
    """Hold out a share of the distinct problems; equal problems always land on the same side.

    Each key is hashed together with the seed, and those with the lowest hashes are held out. A row's side so depends on
    the problems there are and on nothing else: not on the order of rows, the process, the rank or the machine (Python's
    own `hash` differs between processes). When the set grows, a problem changes sides only if it is near the boundary
    hash, where a shuffle would reassign everything, and train the model on what it was tested on before.

    Args:
        problems: the rows; duplicates are fine and kept.
        keys: the key of each row.
        test_size: share of the distinct problems to hold out, between 0 and 1; at least one problem is on each side.
        seed: another seed holds out other problems.

    Returns:
        the rows to train on and those held out, in their order in `problems`.

    Raises:
        DataError: if `test_size` is not between 0 and 1, or there are fewer than two distinct problems.
    """
    if not 0 < test_size < 1:
        raise DataError(f"test_size is {test_size}: it has to be a share between 0 and 1, like 0.1")
    distinct = sorted(set(keys), key=lambda key: _hash(key, seed))
    if len(distinct) < 2:
        raise DataError(f"a split needs at least 2 distinct problems, not {len(distinct)}")
    count = min(max(round(test_size * len(distinct)), 1), len(distinct) - 1)
    held_out = set(distinct[:count])
    sides: tuple[list[int], list[int]] = ([], [])
    for index, key in enumerate(keys):
        sides[key in held_out].append(index)
    logger.info("split: %d rows to train on, %d held out", *map(len, sides))
    return problems.select(sides[0]), problems.select(sides[1])


def _hash(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{key}".encode(errors="surrogatepass"), digest_size=16).digest()


def digest(keys: Iterable[str]) -> str:
    """A short text that is another one for other problems, or for the same in another order.

    >>> digest(["1,2,3:6"]) == digest(["1,2,3:7"])
    False
    """
    total = hashlib.blake2b(digest_size=16)
    for key in keys:
        total.update(f"{key};".encode(errors="surrogatepass"))
    return total.hexdigest()


def check_unchanged(sides: Sides, recorded: Mapping[str, Any]) -> None:
    """Compare the problems that are there now with those that a run recorded.

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
        f"the data set has changed since the run began: its {' and '.join(changed)} problems are others now "
        f"({now['train_puzzles']} to train on and {now['held_out_puzzles']} held out; recorded: "
        f"{recorded.get('train_puzzles')} and {recorded.get('held_out_puzzles')})"
    )
    fix = (
        "restore the old data (for one from the Hub, name its commit with dataset_revision), or start a new run in "
        "another output_dir"
    )
    return Problem("dataset_id_or_path", sides.settings.dataset, "the problems that the run began with", fix, cause)
