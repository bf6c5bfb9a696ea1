"""One function decides what is held out, and changed data are noticed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset

from mini_r1.countdown import load_countdown, split_train_test
from mini_r1.holdout import DataError, DataSettings, check_unchanged, digest, find_change, hold_out, puzzle_keys
from mini_r1.recipe import parse_recipe

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
    assert not set(puzzle_keys(sides.train)) & set(puzzle_keys(sides.held_out))
    check_unchanged(again, recorded)


def test_it_is_the_split_of_the_runs_before_there_were_records() -> None:
    sides = hold_out(DataSettings("generated:tiny", max_samples=300))
    expected = split_train_test(load_countdown("generated:tiny", max_samples=300, seed=42), 0.1, 42)
    assert sides.train.to_list() == expected["train"].to_list()
    assert sides.held_out.to_list() == expected["test"].to_list()


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
    assert "its held-out puzzles are others now" in fewer.cause


def test_the_seed_decides_the_split_and_the_revision_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(write(tmp_path / "puzzles.jsonl", PUZZLES), split_seed=7, revision="v1")
    asked: dict[str, object] = {}

    def load(name: str, **more: object) -> Dataset:
        asked.update(more)
        return load_countdown(name, seed=7)

    monkeypatch.setattr("mini_r1.holdout.load_countdown", load)
    expected = split_train_test(load_countdown(settings.dataset, seed=7), 0.25, 7)
    assert hold_out(settings).held_out.to_list() == expected["test"].to_list()
    assert (asked["seed"], asked["revision"]) == (7, "v1")


def test_a_record_without_a_data_set_is_none_of_the_default_one() -> None:
    with pytest.raises(KeyError):
        DataSettings.read({"split_seed": 7})


def test_other_numbers_with_the_same_digits_are_another_puzzle() -> None:
    digests = {digest([key]) for key in (((1, 23), 4), ((12, 3), 4), ((1, 2), 34), ((1, 2, 3), 4))}
    assert len(digests) == 4
