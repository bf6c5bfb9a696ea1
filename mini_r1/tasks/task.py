"""The seam between the recipe and what is learned: everything that Mini-R1 asks of a task.

A task is a subclass of `Task` in one file. It is named in the recipe, `task: countdown` for one of ours or
`task: my_package.my_module:MyTask` for any other that Python can import. Nothing else has to be changed: training,
preflight, samples, evaluation, report, card and notebook see a task only through this class.

The pattern is that of nanochat's `tasks/` (a task knows its rows and how to judge an answer) and of TRL's reward
functions (plain functions of completions and of the data set's columns).
"""

import argparse
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mini_r1.program.problems import UserError

if TYPE_CHECKING:
    from datasets import Dataset

Row = Mapping[str, Any]  # one problem: what its columns hold
RewardFunction = Callable[..., list[Any]]  # TRL's signature: completions, the columns as keywords, **kwargs -> rewards

SYSTEM_PROMPT = (
    "You are a helpful assistant. You first think about the reasoning process in your mind and then provide the user "
    "with the answer."
)
OPENING = (
    "A user talks with an assistant. Whatever the user asks, the assistant first thinks it through in words, step by "
    "step, and then gives the answer."
)
ASSISTANT_PREFILL = "Let me solve this step by step.\n<think>"
CORRECT, NO_ANSWER = "correct", "no_answer"
# What a run logs of every batch, whatever its task and rewards; of an evaluation with `eval_` in front.
SOLVED, FORMAT = "solved", "format"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one completion.

    Attributes:
        reward: 1.0 if the problem is solved, else 0.0; a task with partial credit may give what lies between.
        reason: why, as one word of `Task.reasons`.
        answer: the answer that was judged, if there was one.
    """

    reward: float
    reason: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the problems of a run come from, and how many: the recipe's keys for data.

    Attributes:
        name: `dataset_id_or_path`: a Hub id, a path, or whatever else the task understands.
        split, revision: those of a Hub data set or folder.
        max_samples: how many problems at most.
        seed: of the generator, or of the choice among more than `max_samples`.
    """

    name: str
    split: str = "train"
    revision: str | None = None
    max_samples: int = 50_000
    seed: int = 42


class Task(ABC):
    """What is learned. A subclass gives the rows, the question, the judge and, if it likes, more to look at.

    Args:
        config: the recipe's `task_config`.

    Attributes:
        title, description: its name and one sentence, for card and report.
        default_source: the `dataset_id_or_path` of a recipe that names none.
        columns: the columns of a row that make up the problem; they are what records keep.
        reasons: each reason that a verdict can have, with its meaning for people, in the order of the judge.
        group_order: for a breakdown (`groups`), its values in order; others follow, sorted.
        default_rewards: the rewards of a recipe that names none.
        how_to_get_data: what to do where the data can't be loaded.
        system_prompt: the system message, where the recipe has none of its own.
        opening: what the plain text for a base model (`prompt_style: base`) opens with, in the system message's place.
        prefill: what the assistant's turn begins with; the completion continues from there.
    """

    title: ClassVar[str]
    description: ClassVar[str]
    default_source: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    reasons: ClassVar[Mapping[str, str]]
    group_order: ClassVar[Mapping[str, Sequence[str]]] = {}
    default_rewards: ClassVar[tuple[str, ...]]
    how_to_get_data: ClassVar[str] = "correct the name or the data"
    system_prompt: ClassVar[str] = SYSTEM_PROMPT
    opening: ClassVar[str] = OPENING
    prefill: ClassVar[str] = ASSISTANT_PREFILL

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config = dict(config or {})

    # --- the problems ---

    @abstractmethod
    def load(self, source: Source) -> "Dataset":
        """Load the rows.

        Raises:
            UserError: the data do not exist, or a row is bad; the message says which, and what to do.
        """

    @abstractmethod
    def key(self, row: Row) -> str:
        """What makes two rows the same problem, which is never on both sides of the split."""

    @abstractmethod
    def question(self, row: Row) -> str:
        """What the user asks: the problem, and the form that the answer is to have."""

    @abstractmethod
    def show(self, row: Row) -> str:
        """The problem in one line, for people."""

    @abstractmethod
    def solved_example(self) -> tuple[Row, str]:
        """A problem and a completion that solves it; the preflight sees whether it comes through the tokenizer."""

    def generates(self, source: str) -> bool:
        """Whether a source makes up as many rows as are asked for."""
        return False

    def is_on_hub(self, source: str) -> bool:
        """Whether loading a source asks the Hugging Face Hub."""
        return False

    def groups(self, row: Row) -> dict[str, str]:
        """The groups that a row belongs to in breakdowns, such as {"difficulty": "easy"}."""
        return {}

    # --- a cold start, before RL ---

    def demonstrate(self, row: Row, chance: random.Random) -> str | None:
        """A completion that shows how a problem is solved, as it follows the prefill; None if there is none.

        By default it is the row's column `demonstration`, where the data has one. A task that writes its own takes
        what is random from `chance`, so that the same run has the same ones.
        """
        written = row.get("demonstration")
        return written if isinstance(written, str) and written.strip() else None

    # --- the judge ---

    @property
    @abstractmethod
    def rewards(self) -> Mapping[str, RewardFunction]:
        """The rewards that a recipe can name. Beside the columns each gets `verdicts` and `in_format`, one for each."""

    @abstractmethod
    def judge(self, completion: str, row: Row) -> Verdict:
        """Judge one completion; takes any text, in time linear in it."""

    @abstractmethod
    def in_format(self, completion: str) -> bool:
        """Whether a completion has the form that was asked for."""

    def measure(self, completion: str, row: Row) -> dict[str, tuple[float, float]]:
        """What else to count in a completion: name -> (how many, of how many); the names are the same for any text.

        Over several completions the two are summed before they are divided.
        """
        return {}

    def measure_in_training(self, completion: str, row: Row) -> dict[str, tuple[float, float]]:
        """What of `measure` is worth its time on every completion of a training; by default all of it."""
        return self.measure(completion, row)

    def marks(self, completion: str, row: Row) -> list[list[str]]:
        """For the lines of a completion, from the first: what a person should see is wrong with each."""
        return []

    # --- one problem by hand, for scripts/ask.py ---

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options by which a person gives a problem on the command line."""
        example = json.dumps(dict(self.solved_example()[0]))
        parser.add_argument("--row", type=json_object, required=True, help=f"the problem as JSON, such as '{example}'")

    def read_arguments(self, arguments: argparse.Namespace) -> Row:
        """The problem that a person has given.

        Raises:
            UserError: naming the option and what is allowed.
        """
        row: Row = arguments.row
        if missing := [name for name in self.columns if name not in row]:
            raise UserError(f"--row: {', '.join(missing)} missing: give a JSON object with {', '.join(self.columns)}")
        return row

    def solution(self, row: Row) -> str | None:
        """A solution, or the statement that none exists, for a person who has seen the model try."""
        return None


def rows_of(problems: "Dataset") -> list[dict[str, Any]]:
    """The rows of a data set as plain dictionaries, in order."""
    rows: list[dict[str, Any]] = problems.to_list()
    return rows


def json_object(text: str) -> dict[str, Any]:
    """A mapping given on a command line as JSON; a type for argparse, which shows the message."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text[:100]!r} is not a JSON object; needed: one such as {{"key": "value"}}')
    return value


def batch_rows(columns: Mapping[str, Any], names: Sequence[str], size: int) -> list[dict[str, Any]]:
    """The rows of a batch from the columns that TRL hands to a reward function.

    >>> batch_rows({"nums": [[1, 2], [3]], "target": [3, 3], "trainer_state": None}, ("nums", "target"), 2)
    [{'nums': [1, 2], 'target': 3}, {'nums': [3], 'target': 3}]
    """
    return [{name: columns[name][index] for name in names if name in columns} for index in range(size)]
