"""Puzzles: reproducible, solvable, read from every format, refused with a reason, and held out without a leak."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from mini_r1.runs.holdout import keys_of, split_train_test
from mini_r1.tasks.countdown import puzzles as countdown
from mini_r1.tasks.countdown.puzzles import (
    WORLDS,
    World,
    generate_puzzles,
    load_countdown,
    puzzle_key,
    validate_puzzles,
)
from mini_r1.tasks.countdown.solver import difficulty, solve
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.countdown.thinking import enumerate_attempts

ROWS: list[dict[str, Any]] = [
    {"nums": [19, 36, 55, 7], "target": 65},
    {"nums": [1, 2, 3], "target": 6},
    {"nums": [4, 8], "target": 2},
]


def keys(dataset: Dataset) -> list[countdown.Key]:
    return [puzzle_key(row["nums"], row["target"]) for row in dataset]


def puzzles(dataset: Dataset) -> list[dict[str, Any]]:
    return [{"nums": row["nums"], "target": row["target"]} for row in dataset]


# --- the generator


@pytest.mark.parametrize("name, n", [("tiny", 500), ("countdown-3to4", 300), ("countdown-6", 20)])
def test_generated_puzzles_are_distinct_solvable_and_in_their_world(name: str, n: int) -> None:
    world = WORLDS[name]
    dataset = generate_puzzles(n, seed=1, world=world)
    assert dataset.column_names == ["nums", "target"] and len(dataset) == n
    assert len(set(keys(dataset))) == n
    assert {len(row["nums"]) for row in dataset} == set(world.how_many)
    for row in dataset:
        assert all(world.number_range[0] <= number <= world.number_range[1] for number in row["nums"])
        assert world.target_range[0] <= row["target"] <= world.target_range[1]
        assert solve(row["nums"], row["target"], world.operators) is not None


def test_max_intermediate_leaves_a_solution_in_small_whole_numbers() -> None:
    world = World((3,), (1, 20), (1, 100), "+-*/", 60)
    for row in generate_puzzles(200, seed=3, world=world):
        values = {attempt.value for attempt in enumerate_attempts(row["nums"], "+-*/", 60)}
        assert row["target"] in values, row


def test_operators_of_the_world_are_enough() -> None:
    dataset = generate_puzzles(100, seed=0, world=replace(WORLDS["tiny"], operators="+-"))
    assert {difficulty(row["nums"], row["target"]) for row in dataset} == {"easy"}


def test_same_seed_same_puzzles_and_more_of_them_begin_alike() -> None:
    few, many = (generate_puzzles(n, seed=7, world=WORLDS["tiny"]).to_list() for n in (50, 80))
    assert many[:50] == few
    assert generate_puzzles(50, seed=8, world=WORLDS["tiny"]).to_list() != few


def test_world_that_runs_out_says_how_many_there_are() -> None:
    world = World((2,), (1, 3), (1, 9), "+*")
    # {1,1} {1,2} {1,3} {2,2} {2,3} {3,3}: 6 sums and 6 products, of which 2 + 2 and 2 * 2 are the same puzzle
    assert len(generate_puzzles(11, seed=0, world=world)) == 11
    with pytest.raises(ValueError, match=r"found only 11 distinct puzzles of the 12 asked for"):
        generate_puzzles(12, seed=0, world=world)


def test_cannot_make_zero_puzzles() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        generate_puzzles(0, seed=0, world=WORLDS["tiny"])


def test_ten_thousand_tiny_puzzles_are_cheap() -> None:
    started = time.process_time()
    assert len(generate_puzzles(10_000, seed=0, world=WORLDS["tiny"])) == 10_000
    assert time.process_time() - started < 15  # seconds; takes about 1


SCRIPT = """
import json
from mini_r1.tasks.countdown.puzzles import WORLDS, generate_puzzles
from mini_r1.runs.holdout import keys_of, split_train_test
from mini_r1.tasks.countdown.task import Countdown
dataset = generate_puzzles(60, seed=5, world=WORLDS["countdown-3to4"])
sides = split_train_test(dataset, keys_of(Countdown(), dataset), seed=5)
print(json.dumps([side.to_list() for side in sides]))
"""


def test_a_fresh_process_with_another_hash_seed_agrees() -> None:
    dataset = generate_puzzles(60, seed=5, world=WORLDS["countdown-3to4"])
    here = [side.to_list() for side in split_train_test(dataset, keys_of(Countdown(), dataset), seed=5)]
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == here


# --- loading


def write_csv(path: Path, nums_as: Callable[[list[int]], str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["nums", "target"])
        writer.writerows([nums_as(row["nums"]), row["target"]] for row in ROWS)


def as_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n", encoding="utf-8")


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.jsonl": as_jsonl,
    "lines.json": as_jsonl,
    "list.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "a.parquet": lambda path: Dataset.from_list(ROWS).to_parquet(path),
    "brackets.csv": lambda path: write_csv(path, str),
    "spaces.csv": lambda path: write_csv(path, lambda nums: " ".join(map(str, nums))),
    "datasets.csv": lambda path: Dataset.from_list(ROWS).to_csv(path),
    "upper.JSONL": as_jsonl,
    "saved": lambda path: Dataset.from_list(ROWS).save_to_disk(path),
    "saved_dict": lambda path: DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_round_trips(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    dataset = load_countdown(str(tmp_path / name))
    assert dataset.column_names == ["nums", "target"]
    assert dataset.to_list() == ROWS


def test_extra_columns_go_and_difficulty_stays(tmp_path: Path) -> None:
    rows = [row | {"difficulty": "easy", "note": index or "mixed types"} for index, row in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_countdown(str(tmp_path / "a.jsonl")).to_list() == [row | {"difficulty": "easy"} for row in ROWS]


def test_folder_of_files_takes_the_ones_of_the_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    as_jsonl(tmp_path / "data" / "train-00000-of-00002.jsonl")
    Dataset.from_list(ROWS).to_parquet(tmp_path / "data" / "train-00001-of-00002.parquet")
    Dataset.from_list(ROWS[:1]).to_parquet(tmp_path / "test.parquet")
    assert load_countdown(str(tmp_path)).to_list() == ROWS + ROWS
    assert load_countdown(str(tmp_path), split="test").to_list() == ROWS[:1]
    with pytest.raises(FileNotFoundError, match="split 'validation'"):
        load_countdown(str(tmp_path), split="validation")


def test_folder_of_files_without_split_names_is_used_whole(tmp_path: Path) -> None:
    as_jsonl(tmp_path / "b.jsonl")
    as_jsonl(tmp_path / "a.json")
    (tmp_path / "README.md").write_text("about")
    assert load_countdown(str(tmp_path)).to_list() == ROWS + ROWS


def test_saved_splits_are_named_when_the_wanted_one_is_missing(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "d")
    with pytest.raises(ValueError, match="no split 'test', only train"):
        load_countdown(str(tmp_path / "d"), split="test")


def test_generated_source() -> None:
    loaded = load_countdown("generated:tiny", max_samples=30, seed=9)
    assert loaded.to_list() == generate_puzzles(30, seed=9, world=WORLDS["tiny"]).to_list()
    with pytest.raises(ValueError, match=r"no world 'huge': choose from countdown-3to4, countdown-6, tiny"):
        load_countdown("generated:huge")


def test_max_samples_is_a_seeded_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"nums": [index, 1], "target": index + 1} for index in range(1, 101)]
    path.write_text("\n".join(map(json.dumps, rows)))
    first, again, other = (load_countdown(str(path), max_samples=20, seed=seed).to_list() for seed in (1, 1, 2))
    assert len(first) == 20 and first == again != other
    assert first != rows[:20] and all(row in rows for row in first)
    assert load_countdown(str(path), max_samples=100).to_list() == rows
    assert load_countdown(str(path), max_samples=1000).to_list() == rows
    with pytest.raises(ValueError, match="max_samples is 0"):
        load_countdown(str(path), max_samples=0)


@pytest.mark.parametrize("source", ["./none", "/none/at/all", "none.jsonl", "none.CSV", "data/none/here", "~/none_xyz"])
def test_missing_local_path_never_becomes_a_hub_look_up(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(countdown, "load_dataset", lambda *args, **kwargs: pytest.fail("asked the Hub"))
    with pytest.raises(FileNotFoundError, match="check the path"):
        load_countdown(source)


def test_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def fake(*args: Any, **kwargs: Any) -> Dataset:
        calls.append((args, kwargs))
        return Dataset.from_list([row | {"extra": 1} for row in ROWS])

    monkeypatch.setattr(countdown, "load_dataset", fake)
    assert load_countdown("me/puzzles", split="test", revision="v1").to_list() == ROWS
    assert calls == [(("me/puzzles",), {"split": "test", "revision": "v1"})]  # so no trust_remote_code either


def test_unreachable_hub_points_to_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Dataset:
        raise ConnectionError("no route")

    monkeypatch.setattr(countdown, "load_dataset", fail)
    with pytest.raises(ConnectionError, match=r"no route.*generated:countdown-3to4"):
        load_countdown()


@pytest.mark.parametrize("source", ["generated:tiny", "./puzzles.jsonl"])
def test_revision_is_refused_where_it_means_nothing(source: str) -> None:
    with pytest.raises(ValueError, match="revision 'main' is for data sets on the Hub"):
        load_countdown(source, revision="main")


# --- bad rows

BAD_VALUES = [
    ("nums", [], "found []"),
    ("nums", "1 2 3", "found '1 2 3'"),
    ("nums", 5, "found 5"),
    ("nums", None, "found None"),
    ("nums", [1, "2"], "found [1, '2']"),
    ("nums", [1, 2.5], "found [1, 2.5]"),
    ("nums", [1, 0], "found [1, 0]"),
    ("nums", [-1, 2], "found [-1, 2]"),
    ("nums", [True, 2], "found [True, 2]"),
    ("nums", [1, None], "found [1, None]"),
    ("nums", [1, 2**63], f"found [1, {2**63}]"),
    ("target", "6", "found '6'"),
    ("target", 6.0, "found 6.0"),
    ("target", None, "found None"),
    ("target", True, "found True"),
]


@pytest.mark.parametrize("column, value, found", BAD_VALUES)
def test_bad_value_is_named(column: str, value: Any, found: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*ROWS, ROWS[0] | {column: value}]))
    with pytest.raises(ValueError) as caught:
        load_countdown(str(path))
    for part in (str(path), "row 3", f"column '{column}'", found, "Allowed:", "Fix:"):
        assert part in str(caught.value)


@pytest.mark.parametrize("rows", [[{"nums": [1.0, 2.0], "target": 3}], [{"nums": [1, 2], "target": "3"}]])
def test_bad_column_type_of_a_data_set_is_named(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"the data set, row 0, column '(nums|target)': found (\[1.0, 2.0\]|'3')"):
        validate_puzzles(Dataset.from_list(rows))


@pytest.mark.parametrize("nums", ["[1, 2", "__import__('os').getcwd()", "1 x", "", "{}"])
def test_bad_csv_text_is_named_and_never_run(nums: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f'nums,target\n"[1, 2]",3\n"{nums}",3\n')
    with pytest.raises(ValueError, match="row 1, column 'nums'"):
        load_countdown(str(path))


def test_bad_csv_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text('nums,target\n"[1, 2]",three\n')
    with pytest.raises(ValueError, match="row 0, column 'target': found 'three'"):
        load_countdown(str(tmp_path / "bad.csv"))


@pytest.mark.parametrize("text", ['{"numbers": [1, 2], "target": 3}', '{"nums": [1, 2]}'])
def test_missing_column_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"row 0: no column '(nums|target)', only .* Allowed: .* Fix: "):
        load_countdown(str(tmp_path / "bad.jsonl"))
    with pytest.raises(ValueError, match=r"the data set: no column '(nums|target)', only"):
        validate_puzzles(Dataset.from_list([json.loads(text)]))


@pytest.mark.parametrize("name, text", [("a.jsonl", "[1, 2]"), ("a.json", "[[1, 2]]"), ("a.jsonl", "7")])
def test_row_that_is_no_object(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"row 0: found .* Allowed: "):
        load_countdown(str(tmp_path / name))


@pytest.mark.parametrize("name, text", [("a.jsonl", "nums: 1"), ("a.json", '{"nums": '), ("a.json", "[1, ")])
def test_broken_json(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="is not JSON"):
        load_countdown(str(tmp_path / name))


@pytest.mark.parametrize("name, text", [("a.jsonl", ""), ("a.json", "[]"), ("a.csv", "nums,target\n")])
def test_empty_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="no rows in"):
        load_countdown(str(tmp_path / name))


def test_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"not one of \.jsonl"):
        load_countdown(str(tmp_path / "a.txt"))
