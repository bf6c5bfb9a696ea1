"""One function decides what is held out, and changed data are noticed."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset

from mini_r1.recipe.read import parse_recipe
from mini_r1.runs.holdout import (
    DataError,
    DataSettings,
    check_unchanged,
    digest,
    find_change,
    hold_out,
    keys_of,
    split_train_test,
)
from mini_r1.tasks.countdown.puzzles import WORLDS, generate_puzzles, load_countdown
from mini_r1.tasks.countdown.task import Countdown

EARLY = ["1,19,77:59", "84,98,98:84", "7,13,31:37"]  # held out of the first 300 tiny puzzles
PUZZLES = [{"nums": [n, n + 1, 3], "target": 2 * n + 4} for n in range(1, 41)]


def write(path: Path, rows: list[dict[str, object]]) -> DataSettings:
    """Puzzles in a file, and the settings of a run on them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSettings(str(path), test_size=0.25)


def test_a_recipe_and_its_record_hold_out_the_same_puzzles(small_arguments: list[str]) -> None:
    more = ["--max_samples", "120", "--test_size", "0.2", "--split_seed", "7"]
    settings = DataSettings.of(parse_recipe([*small_arguments, *more])[0])
    sides = hold_out(settings)
    recorded = json.loads(json.dumps(sides.record()))
    assert DataSettings.read(recorded) == settings
    again = hold_out(DataSettings.read(recorded))
    assert again.held_out.to_list() == sides.held_out.to_list() and len(again.held_out) == 24
    assert not set(sides.keys(sides.train)) & set(sides.keys(sides.held_out))
    check_unchanged(again, recorded)


def test_it_is_the_split_of_the_runs_before_there_were_records() -> None:
    """Those puzzles, whatever becomes of this code: else an old model would be measured on what it was trained on."""
    sides = hold_out(DataSettings("generated:tiny", max_samples=300))
    assert sides.keys(sides.held_out)[:3] == EARLY
    assert len(sides.held_out) == 30


def test_changed_data_are_an_error(tmp_path: Path) -> None:
    """A row more, a row less, another target; rows in another order are another order of training."""
    settings = write(tmp_path / "puzzles.jsonl", PUZZLES)
    recorded = hold_out(settings).record()
    check_unchanged(hold_out(settings), recorded)
    more = [*PUZZLES, {"nums": [9, 9, 9], "target": 27}]
    for rows in (more, PUZZLES[1:], [*PUZZLES[:-1], PUZZLES[-1] | {"target": 1}], PUZZLES[::-1]):
        write(tmp_path / "puzzles.jsonl", rows)
        with pytest.raises(DataError, match=r"puzzles\.jsonl: the data set has changed since the run began.* new run"):
            check_unchanged(hold_out(settings), recorded)


def test_a_record_of_an_earlier_version_has_no_digest_to_compare(tmp_path: Path) -> None:
    settings = write(tmp_path / "puzzles.jsonl", PUZZLES)
    check_unchanged(hold_out(settings), {"dataset": settings.dataset})


def test_each_side_is_compared_by_itself_and_the_order_of_the_held_out_one_does_not_count(tmp_path: Path) -> None:
    sides = hold_out(write(tmp_path / "puzzles.jsonl", PUZZLES))
    count = len(sides.held_out)
    assert find_change(replace(sides, held_out=sides.held_out.select(range(count)[::-1])), sides.record()) is None
    fewer = find_change(replace(sides, held_out=sides.held_out.select(range(1, count))), sides.record())
    assert fewer is not None
    assert "its held-out problems are others now" in fewer.cause


def test_the_seed_decides_the_split_and_the_revision_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(write(tmp_path / "puzzles.jsonl", PUZZLES), split_seed=7, revision="v1")
    asked: dict[str, object] = {}

    def load(name: str, **more: object) -> Dataset:
        asked.update(more)
        return load_countdown(name, seed=7)

    monkeypatch.setattr("mini_r1.tasks.countdown.task.load_countdown", load)
    _, expected = split(load_countdown(settings.dataset, seed=7), 0.25, 7)
    assert hold_out(settings).held_out.to_list() == expected.to_list()
    assert (asked["seed"], asked["revision"]) == (7, "v1")


def test_a_record_without_a_data_set_is_none_of_the_default_one() -> None:
    with pytest.raises(KeyError):
        DataSettings.read({"split_seed": 7})


def test_other_numbers_with_the_same_digits_are_another_puzzle() -> None:
    puzzles = (([1, 23], 4), ([12, 3], 4), ([1, 2], 34), ([1, 2, 3], 4))
    task = Countdown()
    assert len({digest([task.key({"nums": nums, "target": target})]) for nums, target in puzzles}) == 4


# --- the split


def keys(problems: Dataset) -> list[str]:
    return keys_of(Countdown(), problems)


def split(problems: Dataset, test_size: float = 0.1, seed: int = 42) -> tuple[Dataset, Dataset]:
    return split_train_test(problems, keys(problems), test_size, seed)


def shuffled_copies(copies: int) -> Dataset:
    """Two hundred puzzles, each several times, numbers in another order each time, rows shuffled."""
    rng = random.Random(0)
    rows = [
        row
        for row in generate_puzzles(200, 0, WORLDS["countdown-3to4"]).select_columns(["nums", "target"]).to_list()
        for _ in range(copies)
    ]
    rng.shuffle(rows)
    return Dataset.from_list([row | {"nums": rng.sample(row["nums"], len(row["nums"]))} for row in rows])


def test_split_never_leaks_duplicates_or_permutations() -> None:
    dataset = shuffled_copies(4)
    sides = split(dataset, 0.1, seed=42)
    train, test = (set(keys(side)) for side in sides)
    assert not train & test
    assert (len(train), len(test)) == (180, 20)
    assert len(sides[0]) + len(sides[1]) == len(dataset) and len(sides[1]) == 80


def test_split_does_not_depend_on_the_order_of_rows() -> None:
    dataset = generate_puzzles(300, 0, WORLDS["tiny"])
    sides = [
        [set(keys(side)) for side in split(version, 0.2, seed=1)]
        for version in (dataset, dataset.shuffle(seed=3), dataset.select(range(299, -1, -1)))
    ]
    assert sides[0] == sides[1] == sides[2]


def test_split_depends_on_the_seed_only() -> None:
    dataset = generate_puzzles(300, 0, WORLDS["tiny"])
    first, again, other = (split(dataset, seed=seed)[1].to_list() for seed in (1, 1, 2))
    assert first == again != other


def test_split_of_a_grown_set_keeps_nearly_all_in_place() -> None:
    large = generate_puzzles(1000, 0, WORLDS["tiny"])
    before = set(keys(split(large.select(range(900)))[1]))
    after = set(keys(split(large)[1]))
    assert len(before - after) <= 10  # a shuffle would have kept about 9 of the 90


def test_split_keeps_rows_in_their_order_and_all_columns() -> None:
    dataset = generate_puzzles(100, 0, WORLDS["tiny"])
    dataset = dataset.add_column("difficulty", ["easy"] * 100)
    order = {key: index for index, key in enumerate(keys(dataset))}
    for side in split(dataset):
        positions = [order[key] for key in keys(side)]
        assert positions == sorted(positions)
        assert side.column_names == ["nums", "target", "difficulty"]


def test_split_puts_at_least_one_puzzle_on_each_side() -> None:
    for share in (0.01, 0.99):
        assert min(map(len, split(Dataset.from_list(PUZZLES), share))) == 1


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, 20])
def test_split_refuses_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="share between 0 and 1"):
        split(Dataset.from_list(PUZZLES), share)


def test_split_refuses_a_single_puzzle() -> None:
    with pytest.raises(ValueError, match="at least 2 distinct problems"):
        split(Dataset.from_list([{"nums": [1, 2, 3], "target": 6}, {"nums": [3, 2, 1], "target": 6}]))
