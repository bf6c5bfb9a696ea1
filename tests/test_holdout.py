"""One function decides what is held out, and changed data are noticed."""

import json
from pathlib import Path

import pytest

from mini_r1.countdown import load_countdown, split_train_test
from mini_r1.holdout import DataError, DataSettings, check_unchanged, hold_out, puzzle_keys
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
