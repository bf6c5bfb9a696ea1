"""Countdown puzzles: where they come from, and what a good row looks like.

A row is `nums` (list of positive int), `target` (int) and, where its source says it, `difficulty` ("easy", "medium" or
"hard", see `mini_r1.tasks.countdown.solver`). `load_countdown` reads rows from the Hugging Face Hub or from files, or
makes them up.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset, load_dataset

from mini_r1.program.problems import UserError
from mini_r1.tasks.countdown.expression import OPERATIONS, Rational
from mini_r1.tasks.countdown.files import COLUMNS, FILE_ENDINGS, PuzzleError, Row, read_rows, read_saved

Key: TypeAlias = tuple[tuple[int, ...], int]

DEFAULT_DATASET = "Jiayi-Pan/Countdown-Tasks-3to4"
GENERATED_PREFIX = "generated:"
_SPLIT_NAMES = ("train", "test", "validation", "valid", "val", "dev", "eval")


class NoPuzzlesError(UserError, FileNotFoundError):
    """A file or folder does not exist, or holds no puzzles."""


class HubError(UserError, ConnectionError):
    """The Hub has no such data set or can't be reached."""


@dataclass(frozen=True)
class World:
    """What the puzzles of one family look like. All ranges include both ends.

    Attributes:
        how_many: how many numbers a puzzle may have, one of these at random.
        number_range: smallest and largest number.
        target_range: smallest and largest target.
        operators: the operators a solution may need, from "+-*/".
        max_intermediate: if set, each puzzle has a solution whose results, on the way and at the end, are whole,
            not negative and at most this large. None: fractions, negatives and any size may be needed.
    """

    how_many: tuple[int, ...]
    number_range: tuple[int, int]
    target_range: tuple[int, int]
    operators: str = "+-*/"
    max_intermediate: int | None = None


WORLDS = {
    "countdown-3to4": World((3, 4), (1, 99), (10, 99)),  # as the hub data set Jiayi-Pan/Countdown-Tasks-3to4
    "countdown-6": World((6,), (1, 100), (100, 999)),
    "tiny": World((3,), (1, 99), (1, 100), "+-*/", 200),
}

# --- making puzzles up ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def generate_puzzles(n: int, seed: int, world: World) -> Dataset:
    """Make `n` distinct puzzles, each solvable by construction: draw numbers, combine them at random, keep the result.

    The same `(n, seed, world)` gives the same rows on every machine, and a larger `n` begins with the same rows.
    Two puzzles are the same if they have the same target and the same numbers in any order. 50,000 take seconds, so the
    last ones made are kept: an evaluation needs those of its own run, and those of the base that the run builds on.

    >>> generate_puzzles(1, seed=0, world=WORLDS["tiny"])[0]
    {'nums': [32, 94, 42], 'target': 84}

    Raises:
        PuzzleError: if `n` is not positive, or the world seems to have fewer than `n` distinct puzzles.
    """
    if n < 1:
        raise PuzzleError(f"cannot make {n} puzzles: ask for at least 1")
    rng = random.Random(seed)
    seen: set[Key] = set()
    rows: list[Row] = []
    misses = 0
    while len(rows) < n:
        nums, target = _draw(rng, world)
        if target is None or (key := puzzle_key(nums, target)) in seen:
            misses += 1
            if misses > 10_000 + len(rows):  # so many draws in a row gave nothing new: the world is (nearly) used up
                raise PuzzleError(
                    f"found only {len(rows)} distinct puzzles of the {n} asked for (the last {misses} draws gave "
                    f"nothing new): ask for at most {len(rows)}, or widen {world}"
                )
            continue
        misses = 0
        seen.add(key)
        rows.append({"nums": nums, "target": target})
    return Dataset.from_list(rows)


def _draw(rng: random.Random, world: World) -> tuple[list[int], int | None]:
    """Draw numbers and one random way to combine them; the target is None if the result is outside the world."""
    low, high = world.number_range
    nums = [rng.choice(range(low, high + 1)) for _ in range(rng.choice(world.how_many))]  # faster than randint
    values: list[Rational] = [*nums]
    while len(values) > 1:
        left, right = (values.pop(rng.randrange(len(values))) for _ in range(2))
        op = rng.choice(world.operators)
        if op == "/" and right == 0:
            return nums, None
        value = OPERATIONS[op](left, right)
        bound = world.max_intermediate
        if bound is not None and not (value.denominator == 1 and 0 <= value <= bound):
            return nums, None
        values.append(value)
    low, high = world.target_range
    return nums, int(values[0]) if values[0].denominator == 1 and low <= values[0] <= high else None


def puzzle_key(nums: Iterable[int], target: int) -> Key:
    """Return what makes two rows the same puzzle: the multiset of numbers and the target.

    >>> puzzle_key([3, 1, 2], 6) == puzzle_key([2, 3, 1], 6)
    True
    """
    return tuple(sorted(nums)), target


# --- loading -------------------------------------------------------------------------------------------------------


def load_countdown(
    dataset_id_or_path: str = DEFAULT_DATASET,
    *,
    split: str = "train",
    max_samples: int = 50_000,
    seed: int = 42,
    revision: str | None = None,
) -> Dataset:
    """Load at most `max_samples` puzzles, checked row by row.

    Args:
        dataset_id_or_path: one of
            * "generated:NAME": `max_samples` puzzles of `WORLDS[NAME]`, made with `seed`; needs no network;
            * a file ending in .jsonl, .json (a list of rows, or JSON lines), .csv or .parquet; in a CSV, nums is
              written "[1, 2, 3]", "1 2 3" or, as `Dataset.to_csv` does, "[1 2 3]";
            * a folder: one made by `save_to_disk`, or one with such files in it or in its data/ (the files named after
              the split, like train-00000.parquet, or all of them if none is named after a split);
            * anything else: a data set on the Hugging Face Hub.
        split: which split of a hub data set or folder.
        max_samples: how many puzzles at most. A larger set is shuffled with `seed` and cut, a smaller one used whole.
        seed: of the generator or the shuffle.
        revision: branch, tag or commit of a hub data set.

    Returns:
        rows with the columns nums, target and, where the source has it, difficulty.

    Raises:
        PuzzleError: for a bad row (which one, what is wrong, how to fix it), an unknown world or split, or a
            `revision` for something that is not on the Hub.
        NoPuzzlesError: if something that looks like a local path does not exist.
        HubError: if the Hub has no such data set or cannot be reached.
    """
    if max_samples < 1:
        raise PuzzleError(f"max_samples is {max_samples}: it has to be at least 1")
    source, path = dataset_id_or_path, _as_path(dataset_id_or_path)
    is_generated = source.startswith(GENERATED_PREFIX)
    if revision is not None and (is_generated or _looks_local(source)):
        raise PuzzleError(f"revision {revision!r} is for data sets on the Hub, and {source!r} is not one: remove it")
    if is_generated:
        return generate_puzzles(max_samples, seed, get_world(source.removeprefix(GENERATED_PREFIX)))
    if not _looks_local(source):
        dataset = _load_from_hub(source, split, revision)
    elif not path.exists():
        fix = "download it first" if "://" in source else "check the path"
        raise NoPuzzlesError(f"no file or folder {source!r} (looked in {Path.cwd()}): {fix}")
    else:
        dataset = _load_folder(path, split) if path.is_dir() else _load_files([path])
    dataset = validate_puzzles(dataset, source)
    if max_samples < len(dataset):
        dataset = dataset.shuffle(seed=seed, keep_in_memory=True).select(range(max_samples))
    return dataset


def _as_path(source: str) -> Path:
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long; a user that is not there; a zero byte
        raise PuzzleError(f"{source[:100]!r} can't be a path or a data set ({error}): correct it") from error
    if not source.strip():
        raise PuzzleError(f"the data set is {source!r}: name a file, a folder, a Hub id or {GENERATED_PREFIX}WORLD")
    return path


def get_world(name: str) -> World:
    """Return a built-in world by name.

    Raises:
        PuzzleError: naming the worlds there are.
    """
    if name not in WORLDS:
        raise PuzzleError(f"there is no world {name!r}: choose from {', '.join(WORLDS)}")
    return WORLDS[name]


def is_on_hub(source: str) -> bool:
    """Whether `load_countdown` would look for a source on the Hugging Face Hub."""
    return not source.startswith(GENERATED_PREFIX) and not _looks_local(source)


def _looks_local(source: str) -> bool:
    """A hub id is NAME or OWNER/NAME; all else, and whatever exists here, is a path."""
    return (
        source.startswith((".", "/", "~"))
        or source.lower().endswith(FILE_ENDINGS)
        or source.count("/") > 1
        or Path(source).exists()
    )


def _load_from_hub(dataset_id: str, split: str, revision: str | None) -> Dataset:
    try:
        return load_dataset(dataset_id, split=split, revision=revision)
    except (ConnectionError, FileNotFoundError) as error:  # no network; no such data set
        raise HubError(
            f"could not load {dataset_id!r} from the Hugging Face Hub ({type(error).__name__}: {error}). Check the "
            f"name and the network, or use '{GENERATED_PREFIX}countdown-3to4', which needs neither"
        ) from error


def _load_folder(folder: Path, split: str) -> Dataset:
    if any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):
        return read_saved(folder, split)
    files = sorted(f for f in [*folder.glob("*"), *folder.glob("data/*")] if f.suffix.lower() in FILE_ENDINGS)
    stems = {file: file.stem.lower().replace("_", "-").replace(".", "-").split("-")[0] for file in files}
    if any(stem in (split, *_SPLIT_NAMES) for stem in stems.values()):
        files = [file for file, stem in stems.items() if stem == split]
    if not files:
        raise NoPuzzlesError(
            f"{folder} holds no puzzles for the split {split!r}: it should be made by save_to_disk, or hold files "
            f"ending in {', '.join(FILE_ENDINGS)}; found {sorted(path.name for path in folder.iterdir())}"
        )
    return _load_files(files)


def _load_files(files: Sequence[Path]) -> Dataset:
    rows = []
    for file in files:
        rows += _check_rows(read_rows(file), str(file))
    if not rows:
        raise PuzzleError(f"no rows in {', '.join(map(str, files))}. Fix: it needs a puzzle in each row")
    columns = [*COLUMNS, *(["difficulty"] if any(row.get("difficulty") for row in rows) else [])]
    return Dataset.from_dict({column: [row.get(column) for row in rows] for column in columns})


# --- checking ------------------------------------------------------------------------------------------------------


def validate_puzzles(dataset: Dataset, source: str = "the data set") -> Dataset:
    """Return `dataset` with only the columns nums, target and difficulty (where there is one), all rows checked.

    Raises:
        PuzzleError: at the first bad row: its index, the column, the value found, what is allowed, and the fix.
    """
    if missing := [column for column in COLUMNS if column not in dataset.column_names]:
        raise PuzzleError(_missing_column(source, missing, dataset.column_names))
    dataset = dataset.select_columns([name for name in (*COLUMNS, "difficulty") if name in dataset.column_names])
    nums, targets = dataset["nums"][:], dataset["target"][:]
    if not targets:
        raise PuzzleError(f"{source}: no rows")
    _check_rows([{"nums": n, "target": t} for n, t in zip(nums, targets, strict=True)], source)
    return dataset


def _missing_column(source: str, missing: Sequence[str], found: Iterable[str], row: int | None = None) -> str:
    where = source if row is None else f"{source}, row {row}"
    return (
        f"{where}: no column {' and no column '.join(map(repr, missing))}, only {sorted(found)}. Allowed: rows with "
        f"nums (list of positive integers) and target (integer). Fix: rename or add the column"
    )


def _check_rows(rows: list[Any], source: str) -> list[Row]:
    """Return the rows, or raise ValueError for the first one that is not a puzzle."""
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise PuzzleError(
                f'{source}, row {index}: found {row!r:.200}. Allowed: {{"nums": [1, 2, 3], "target": 6}}. Fix: '
                f"make each row such an object"
            )
        if missing := [column for column in COLUMNS if column not in row]:
            raise PuzzleError(_missing_column(source, missing, row, index))
        nums, target = row["nums"], row["target"]
        if not isinstance(nums, list) or not nums or not all(_is_int(number) and number > 0 for number in nums):
            raise PuzzleError(
                f"{source}, row {index}, column 'nums': found {nums!r:.200}. Allowed: a list of one or more positive "
                f"integers, like [1, 2, 3]. Fix: correct or remove the row"
            )
        if not _is_int(target):
            raise PuzzleError(
                f"{source}, row {index}, column 'target': found {target!r:.200}. Allowed: an integer, like 24. "
                f"Fix: correct or remove the row"
            )
        if not _is_label(row.get("difficulty")):
            raise PuzzleError(
                f"{source}, row {index}, column 'difficulty': found {row['difficulty']!r}. Allowed: a text, like "
                f"'easy'. Fix: correct it, or remove the column"
            )
    return rows


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63  # what an Arrow column holds


def _is_label(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.isprintable())
