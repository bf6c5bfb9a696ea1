"""GSM8K, grade-school word problems (https://arxiv.org/abs/2110.14168), as a task: only the exact final number counts.

A row is `question` and `answer`: a worked solution, a step in each line, whose last line is `#### 72`.
"""

import random
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from mini_r1.program.problems import Problem, UserError, first_line, nearest
from mini_r1.tasks.answers import QuestionTask, solving
from mini_r1.tasks.countdown.files import read_rows
from mini_r1.tasks.countdown.puzzles import is_on_hub
from mini_r1.tasks.registry import TaskError
from mini_r1.tasks.rewards import last_answer
from mini_r1.tasks.task import CORRECT, NO_ANSWER, Row, Source, Verdict

NOT_A_NUMBER, WRONG_NUMBER = "not_a_number", "wrong_number"
VARIANTS = ("main", "socratic")  # the two configurations of the data set on the Hub
COLUMNS = ("question", "answer")
MARK = "####"
ALLOWED_ROW = f'rows with question and answer, both text, where the last line of answer is like "{MARK} 72"'
MAX_DIGITS = 100  # characters of a number; longer ones are none
# [0-9] and not \d, which also takes the digits of other scripts. Commas only between groups of three.
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_NOTE = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(rf"([+-]?)\$?([+-]?)(?:({_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)|({_WHOLE})\s*/\s*({_WHOLE}))\s*%?\.?")


class Gsm8kError(UserError, ValueError):
    """Data that are not of GSM8K's form; the message says where, what is wrong, and how to fix it."""


class Gsm8k(QuestionTask):
    """Solve a word problem; the answer is one number.

    `task_config: {name: socratic}`, or `task: gsm8k/socratic`, takes the Hub's other wording of the solutions.
    """

    title = "grade-school math (GSM8K)"
    description = "solve a word problem of a few steps, whose answer is one number"
    default_source = "openai/gsm8k"
    columns = COLUMNS
    reasons = {  # noqa: RUF012 (a ClassVar in Task)
        CORRECT: "the right number",
        NO_ANSWER: "no finished answer block",
        NOT_A_NUMBER: "something else than one number",
        WRONG_NUMBER: "another number",
    }
    group_order = {"how many steps": tuple(f"{n} steps" for n in range(20))}  # noqa: RUF012
    how_to_get_data = "correct it, or name a local .jsonl or .parquet file with the columns question and answer"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        if unknown := sorted(map(str, self.config.keys() - {"name"})):
            meant = nearest(unknown[0], ["name"])
            cause = f"it has {', '.join(unknown)}" + (f"; did you mean {meant}?" if meant else "")
            raise TaskError(Problem("task_config", self.config, "only the key name", "remove the others", cause))
        self.variant = self.config.get("name", VARIANTS[0])
        if self.variant not in VARIANTS:
            allowed, fix = " or ".join(VARIANTS), "correct it, or leave it out for main"
            raise TaskError(Problem("task_config: name", repr(self.variant), allowed, fix))

    def load(self, source: Source) -> Dataset:
        """Rows with question and answer, each checked; a larger set is shuffled with the seed and cut."""
        if source.max_samples < 1:
            raise Gsm8kError(f"max_samples is {source.max_samples}: it has to be at least 1")
        if source.revision is not None and not is_on_hub(source.name):
            raise Gsm8kError(
                f"revision {source.revision!r} is for data sets on the Hub, and {source.name!r} is not one"
            )
        rows = _read(source, self.variant)
        _check(rows, source.name)
        problems = Dataset.from_list([{column: row[column] for column in COLUMNS} for row in rows])
        if source.max_samples < len(problems):
            problems = problems.shuffle(seed=source.seed, keep_in_memory=True).select(range(source.max_samples))
        return problems

    def show(self, row: Row) -> str:
        """The word problem, and its number.

        >>> Gsm8k().show({"question": "What is half of 144?", "answer": "144 / 2 = 72\\n#### 72"})
        'What is half of 144? → 72'
        """
        return f"{super().show(row)} → {_after_mark(row['answer'])}"

    def solved_example(self) -> tuple[Row, str]:
        """A problem with all ten digits, and a number that has a sign, a comma and a decimal point."""
        working = "29 * 45 = 1,305\n1,305 - 678 = 627\n627 * 2 - 0.5 = 1,253.5"
        question = (
            "A farmer picks 29 pears from each of 45 trees, sells 678 of them, and doubles what is left at the next "
            "farm. Half a pear is eaten. How many pears are there?"
        )
        return {"question": question, "answer": f"{working}\n{MARK} 1253.5"}, solving("1,253.5")

    def demonstrate(self, row: Row, chance: random.Random) -> str | None:
        """The worked solution of the data set, without the notes for a calculator that it has in it: <<48/2=24>>."""
        working = _NOTE.sub("", row["answer"].rpartition(MARK)[0]).strip()
        return f" {working}\n</think>\n<answer> {_after_mark(row['answer'])} </answer>" if working else None

    def is_on_hub(self, source: str) -> bool:
        """Whether a source is not a local path."""
        return is_on_hub(source)

    def groups(self, row: Row) -> dict[str, str]:
        """How many lines the worked solution has."""
        steps = [line for line in row["answer"].rpartition(MARK)[0].splitlines() if line.strip()]
        return {"how many steps": f"{len(steps)} steps"}

    def judge(self, completion: str, row: Row) -> Verdict:
        """Compare the number in the last answer block with that of the row.

        >>> Gsm8k().judge("so</think><answer>$1,072.0</answer>", {"answer": "#### 1072"}).reason
        'correct'
        """
        answer = last_answer(completion)
        if answer is None:
            return Verdict(0.0, NO_ANSWER, None)
        number = read_number(answer)
        if number is None:
            return Verdict(0.0, NOT_A_NUMBER, answer)
        right = number == read_number(_after_mark(row["answer"]))
        return Verdict(float(right), CORRECT if right else WRONG_NUMBER, answer)

    def solution(self, row: Row) -> str | None:
        """The worked solution of the data set."""
        return str(row["answer"])


def read_number(text: str) -> Fraction | None:
    """The exact value of one number as people write it, or None if the text is anything else.

    A sign, `$`, `%`, commas between groups of three and a full stop at the end are ignored: 50% is 50, as in GSM8K.

    >>> read_number("$1,234.50"), read_number("-3/4"), read_number("50%."), read_number("six"), read_number("12,34")
    (Fraction(2469, 2), Fraction(-3, 4), Fraction(50, 1), None, None)
    """
    text = text.strip()
    found = _NUMBER.fullmatch(text.replace("\N{MINUS SIGN}", "-")) if len(text) <= MAX_DIGITS else None
    if found is None or (found[1] and found[2]):
        return None
    decimal, above, below = (part.replace(",", "") if part else None for part in found.group(3, 4, 5))
    if below is not None and int(below) == 0:
        return None
    value = Fraction(decimal) if decimal else Fraction(int(above or 0), int(below or 1))
    return -value if "-" in (found[1], found[2]) else value


def _after_mark(answer: str) -> str:
    return answer.rpartition(MARK)[2].strip()


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(source: Source, variant: str) -> list[Any]:
    """All rows of a source."""
    if is_on_hub(source.name):
        try:
            return load_dataset(source.name, variant, split=source.split, revision=source.revision).to_list()
        except (OSError, ValueError) as error:  # no network, no such data set, configuration or split
            raise Gsm8kError(
                f"{source.name!r} ({variant}, split {source.split!r}) can't be loaded from the Hugging Face Hub: "
                f"{first_line(error)}. Fix: check name, split and network, or name a local file of the same form"
            ) from error
    path = Path(source.name).expanduser()
    if not path.exists():
        raise Gsm8kError(f"there is no file or folder {source.name!r} (looked in {Path.cwd()}). Fix: check the path")
    if path.is_file():
        return read_rows(path)
    try:
        return load_dataset(str(path), split=source.split, keep_in_memory=True).to_list()
    except Exception as error:  # the readers raise whatever their libraries do
        why = first_line(error)
        raise Gsm8kError(
            f"{path} can't be read: {why}. Needed: {ALLOWED_ROW}. Fix: correct it, or check dataset_split"
        ) from error


def _check(rows: list[Any], source: str) -> None:
    """Refuse the first row that is not of GSM8K's form."""
    if not rows:
        raise Gsm8kError(f"{source} has no rows. Needed: {ALLOWED_ROW}. Fix: name data that has some")
    for index, row in enumerate(rows):
        if wrong := _fault(row):
            raise Gsm8kError(f"{source}, row {index}: {wrong}. Needed: {ALLOWED_ROW}. Fix: correct or remove the row")


def _fault(row: Any) -> str | None:
    """What is wrong with a row, if anything is."""
    if not isinstance(row, dict):
        return f"found {row!r:.100}"
    for column in COLUMNS:
        if column not in row:
            return f"no column {column!r}, only {', '.join(sorted(row)) or 'nothing'}"
        if not isinstance(row[column], str) or not row[column].strip():
            return f"column {column!r} is {row[column]!r:.100}"
    if MARK not in row["answer"]:
        return f"column 'answer' has no {MARK} with the final number: {row['answer'][-100:]!r}"
    if read_number(_after_mark(row["answer"])) is None:
        return f"column 'answer' ends in {_after_mark(row['answer'])!r:.100}, which is not a number"
    return None
