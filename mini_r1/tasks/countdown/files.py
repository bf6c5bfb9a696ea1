"""Reads rows from the files that people bring: JSON, JSON lines, CSV, Parquet, or a folder of `save_to_disk`.

Arrow's readers, which `datasets` uses, give up on the whole file without naming the row; Python's own do not. Whatever
is wrong with a file is one sentence that names it, the place and the fix; nothing is written into a user's folder.
"""

import csv
import json
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, load_from_disk

from mini_r1.program.problems import UserError

Row: TypeAlias = dict[str, Any]

FILE_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
COLUMNS = ("nums", "target")
DELIMITERS = ",;\t|"  # of a CSV; the first with which its header has the columns
GZIP = b"\x1f\x8b"


class PuzzleError(UserError, ValueError):
    """A source of puzzles that can't be used; the message says where, why, and how to fix it."""


def read_rows(file: Path) -> list[Any]:
    """Read one file, by its ending.

    Raises:
        PuzzleError: if it is not what its ending says.
    """
    readers = {".parquet": _read_parquet, ".csv": _read_csv, ".json": _read_json, ".jsonl": _read_json_lines}
    ending = file.suffix.lower()
    if ending not in readers:
        raise PuzzleError(
            f"{file} is not one of {', '.join(FILE_ENDINGS)}. Fix: convert it, or give it its true ending"
        )
    try:
        return readers[ending](file)
    except OSError as error:
        raise PuzzleError(f"{file} can't be read: {error.strerror or error}. Fix: check path and permission") from error


def read_saved(folder: Path, split: str) -> Dataset:
    """Load a folder made by `save_to_disk`, into memory: later steps then keep no caches in it.

    Raises:
        PuzzleError: if it is incomplete, or has no such split.
    """
    try:
        loaded = load_from_disk(str(folder), keep_in_memory=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PuzzleError(
            f"{folder} is not a complete folder of save_to_disk ({reason}). Fix: copy or save it again"
        ) from error
    if not isinstance(loaded, DatasetDict):
        return loaded
    if split not in loaded:
        raise PuzzleError(f"{folder} has no split {split!r}, only {', '.join(loaded)}. Fix: set dataset_split")
    return loaded[split]


def _read_parquet(file: Path) -> list[Any]:
    try:
        rows: list[Any] = pq.read_table(file).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PuzzleError(
            f"{file} is not a complete Parquet file ({reason}). Fix: download or write it again"
        ) from error
    return rows


def _text(file: Path) -> str:
    content = file.read_bytes()
    if content.startswith(GZIP):
        raise PuzzleError(f"{file} is compressed. Fix: gunzip it first")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PuzzleError(
            f"{file} is not UTF-8 text (byte {content[error.start]:#04x} at position {error.start}). Fix: save it as "
            f"UTF-8"
        ) from error


def _read_json_lines(file: Path) -> list[Any]:
    lines = [(number, line) for number, line in enumerate(_text(file).splitlines(), start=1) if line.strip()]
    return [_parse(line, file, "JSON lines", number) for number, line in lines]


def _read_json(file: Path) -> list[Any]:
    """A list of rows, one row, or JSON lines."""
    text = _text(file)
    try:
        value = _parse(text, file, "JSON")
    except PuzzleError:
        if text.count("\n") and text.lstrip().startswith("{"):
            return _read_json_lines(file)
        if text.strip():
            raise
        return []
    return value if isinstance(value, list) else [value]


def _parse(text: str, file: Path, kind: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"{file}, line {line}," if line else f"{file}"
        raise PuzzleError(f"{where} is not {kind}: {error}. Fix: correct it") from None


def _read_csv(file: Path) -> list[Any]:
    text = _text(file)
    try:
        delimiter = next(
            (mark for mark in DELIMITERS if set(COLUMNS) <= set(_header(text, mark))), DELIMITERS[0]
        )  # without one, the check of the rows says what is missing
        reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise PuzzleError(f"{file} is not CSV: {error}. Fix: correct its quotes") from error
    header = [name.strip() for name in lines[0]] if lines else []
    if len(set(header)) < len(header):
        raise PuzzleError(f"{file}: a column occurs twice, in {header}. Fix: remove one")
    for index, line in enumerate(lines[1:]):
        if len(line) > len(header):
            raise PuzzleError(
                f"{file}, row {index}: {len(line)} fields for {len(header)} columns: {line!r:.100}. Fix: put nums "
                f'into quotes, as in "[1, 2, 3]",6, or separate them by spaces'
            )
    return [_parse_csv_row(dict(zip(header, line, strict=False))) for line in lines[1:]]


def _header(text: str, delimiter: str) -> list[str]:
    first = next(csv.reader(text.splitlines()[:1], delimiter=delimiter), [])
    return [name.strip() for name in first]


def _parse_csv_row(row: Row) -> Row:
    """Turn the text of a CSV row into ints where it is ints; anything else is left for the check to complain about."""
    nums = str(row.get("nums", "")).strip()
    if nums.startswith("[") and nums.endswith("]"):
        nums = nums[1:-1]
    parsed = {
        "nums": _json_or_none(f"[{nums if ',' in nums else ','.join(nums.split())}]"),
        "target": _json_or_none(row.get("target")),
    }
    return row | {column: value for column, value in parsed.items() if column in row and value is not None}


def _json_or_none(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
