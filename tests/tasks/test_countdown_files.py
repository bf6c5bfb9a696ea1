"""Files as people bring them: read where their meaning is clear, else refused in one line that names place and fix."""

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from conftest import TINY_BASE
from mini_r1.policy.loading import load_tokenizer
from mini_r1.program.problems import UserError
from mini_r1.prompts.build import build_prompts
from mini_r1.runs.holdout import keys_of, split_train_test
from mini_r1.tasks.countdown.puzzles import load_countdown
from mini_r1.tasks.countdown.task import Countdown

PUZZLE = {"nums": [1, 2, 3], "target": 6}
ROW = json.dumps(PUZZLE)

GOOD = {
    "semicolons.csv": "nums;target\n[1, 2, 3];6\n",
    "quoted.csv": '"nums";"target"\n"1,2,3";"6"\n',
    "tabs.csv": "nums\ttarget\n1 2 3\t6\n",
    "bars.csv": "nums|target\n1 2 3|6\n",
    "spaces.csv": "nums, target\n1 2 3, 6\n",
    "windows.csv": "nums,target\r\n1 2 3,6\r\n",
    "mac.csv": "nums,target\r1 2 3,6\r",
    "bom.csv": "\ufeffnums,target\n1 2 3,6\n",
    "blank.csv": "nums,target\n\n1 2 3,6\n\n",
    "bom.jsonl": f"\ufeff{ROW}\n\n",
    "one.json": ROW,
    "pretty.json": json.dumps(PUZZLE, indent=2),
    "lines.json": f"{ROW}\n{ROW}\n",
}

BAD: dict[str, tuple[str | bytes, str]] = {
    "empty.csv": ("", "no rows"),
    "header.csv": ("nums,target\n", "no rows"),
    "other.csv": ("numbers;goal\n1 2 3;6\n", "no column 'nums'"),
    "capitals.csv": ("Nums,Target\n1 2 3,6\n", "no column 'nums'"),
    "unquoted.csv": ("nums,target\n1, 2, 3,6\n", "row 0: 4 fields for 2 columns"),
    "short.csv": ("nums,target\n1 2 3\n", "row 0: no column 'target'"),
    "quote.csv": ('nums,target\n1 2 3,6\n"4 5 6,7\n', "row 1"),
    "twice.csv": ("nums,nums,target\n1,2,3\n", "twice"),
    "zero.csv": (b"nums,target\n1 2\x003,6\n", "row 0"),
    "long.csv": ("nums,target\n" + "1 " * 100_000 + ",6\n", "not CSV"),
    "digits.csv": (f"nums,target\n1 2 3,{'9' * 5000}\n", "row 0, column 'target'"),
    "utf16.csv": ("nums,target\n1 2 3,6\n".encode("utf-16"), "not UTF-8"),
    "latin1.csv": ("nums,target,note\n1 2 3,6,café\n".encode("latin-1"), "byte 0xe9"),
    "latin1.jsonl": ('{"nums":[1],"target":6,"n":"é"}'.encode("latin-1"), "byte 0xe9"),
    "packed.csv": (gzip.compress(b"nums,target\n1 2 3,6\n"), "compressed"),
    "packed.jsonl": (gzip.compress(ROW.encode()), "compressed"),
    "packed.jsonl.gz": (gzip.compress(ROW.encode()), "not one of .jsonl"),
    "sheet.xlsx": (b"PK\x03\x04", "not one of .jsonl"),
    "empty.json": ("", "no rows"),
    "empty.jsonl": ("\n\n", "no rows"),
    "comma.json": (f"[{ROW},]", "not JSON"),
    "comma.jsonl": (f"{ROW}\n{ROW},\n", "line 2, is not JSON lines"),
    "python.json": (str(PUZZLE), "not JSON"),
    "garbage.json": (f"[{ROW}] garbage", "not JSON"),
    "deep.json": ("[" * 100_000, "not JSON"),
    "wrapped.json": (f'{{"data": [{ROW}]}}', "row 0: no column 'nums'"),
    "columns.json": ('{"nums": [[1, 2, 3]], "target": [6]}', "row 0, column 'nums'"),
    "digits.jsonl": (f'{{"nums": [1], "target": {"9" * 5000}}}', "line 1"),
    "huge.jsonl": (f'{{"nums": [1], "target": {"9" * 30}}}', "row 0, column 'target'"),
    "text.jsonl": ('{"nums": ["1", "x"], "target": 6}', "row 0, column 'nums'"),
    "nan.jsonl": ('{"nums": [1, NaN], "target": 6}', "found [1, nan]"),
    "nested.jsonl": ('{"nums": [[1, 2], [3]], "target": 6}', "row 0, column 'nums'"),
    "null.jsonl": ('{"nums": null, "target": null}', "found None"),
    "list.jsonl": ("[1, 2, 3]", "row 0"),
    "label.jsonl": (f'{ROW}\n{{"nums": [1], "target": 1, "difficulty": [2]}}', "row 1, column 'difficulty'"),
    "surrogate.jsonl": ('{"nums": [1], "target": 1, "difficulty": "\\ud800"}', "column 'difficulty'"),
    "empty.parquet": (b"", "not a complete Parquet file"),
    "page.parquet": (b"<html>not found</html>", "not a complete Parquet file"),
    "pointer.parquet": (b"version https://git-lfs.github.com/spec/v1\n", "not a complete Parquet file"),
}


def write(file: Path, content: str | bytes) -> Path:
    """A file with exactly this in it."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize("name", GOOD)
def test_a_file_whose_meaning_is_clear_is_read(name: str, tmp_path: Path) -> None:
    loaded = load_countdown(str(write(tmp_path / name, GOOD[name])))
    assert loaded[0] == PUZZLE


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_with_name_place_and_fix(name: str, tmp_path: Path) -> None:
    content, words = BAD[name]
    assert refusal(write(tmp_path / name, content), words).count(name) >= 1


def refusal(source: object, words: str) -> str:
    """The message with which a source is refused."""
    with pytest.raises(UserError) as caught:
        load_countdown(str(source))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 1000
    assert "Fix: " in message
    return message


def test_a_parquet_file_that_was_cut_off_or_has_other_types(tmp_path: Path) -> None:
    file = tmp_path / "puzzles.parquet"
    pq.write_table(pa.table({"nums": [[1, 2, 3]], "target": [6]}), file)
    assert load_countdown(str(file))[0] == PUZZLE
    write(file, file.read_bytes()[:-100])
    refusal(file, "not a complete Parquet file")
    pq.write_table(pa.table({"nums": [[1.0, 2.0]], "target": [3.0]}), file)
    refusal(file, "row 0, column 'nums'")


def break_state(folder: Path) -> None:
    (folder / "state.json").write_text("{", encoding="utf-8")


def break_data(folder: Path) -> None:
    next(folder.glob("*.arrow")).write_bytes(b"")


def lose_data(folder: Path) -> None:
    next(folder.glob("*.arrow")).unlink()


@pytest.mark.parametrize("damage", [break_state, break_data, lose_data])
def test_a_damaged_folder_of_save_to_disk(damage: Callable[[Path], None], tmp_path: Path) -> None:
    Dataset.from_list([PUZZLE] * 3).save_to_disk(tmp_path / "saved")
    damage(tmp_path / "saved")
    refusal(tmp_path / "saved", "not a complete folder of save_to_disk")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "name a file"),
        ("x" * 5000, "can't be a path"),
        ("~nobody-here/x.csv", "can't be a path"),
        ("https://example.org/x.csv", "download it first"),
        ("generated:", "no world ''"),
    ],
)
def test_names_that_are_none(source: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_countdown(source)
    assert words in str(caught.value)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file in a folder and what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_folder_of_a_user_stays_as_it_is(tmp_path: Path) -> None:
    """The libraries keep caches beside the data, or fail where the folder is read-only."""
    puzzles = load_countdown("generated:tiny", max_samples=50)
    DatasetDict({"train": puzzles}).save_to_disk(tmp_path / "saved")
    before = snapshot(tmp_path / "saved")
    loaded = load_countdown(str(tmp_path / "saved"), max_samples=40)
    train, _ = split_train_test(loaded, keys_of(Countdown(), loaded))
    build_prompts(train.shuffle(seed=1), Countdown(), load_tokenizer(str(TINY_BASE)), 64)
    assert len(train) == 36
    assert snapshot(tmp_path / "saved") == before
