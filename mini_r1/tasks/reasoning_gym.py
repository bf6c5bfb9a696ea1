"""The hundred tasks of reasoning-gym (https://github.com/open-thought/reasoning-gym), generated and scored by it.

`task: reasoning_gym/knights_knaves` names one; `task_config:` is passed on to it, such as `{n_people: 3}`.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Features, Value

from mini_r1.program.problems import Problem, UserError, nearest
from mini_r1.tasks.answers import QuestionTask, solving
from mini_r1.tasks.reasoning_gym_process import (
    SECONDS_TO_SCORE,
    ReasoningGymError,
    StoppedError,
    reasoning_gym_process,
)
from mini_r1.tasks.registry import TaskError
from mini_r1.tasks.rewards import last_answer
from mini_r1.tasks.task import CORRECT, NO_ANSWER, Row, Source, Verdict

logger = logging.getLogger(__name__)

WRONG, PARTIAL = "wrong", "partial"
GENERATED = "generated"
COLUMNS = ("question", "answer", "metadata")
MAX_ANSWER = 10_000  # characters; longer ones are wrong
OF_THE_RUN = {"size": "max_samples", "seed": "split_seed"}  # settings of each data set that a recipe has keys for
# Scorers that compare numbers find NaN as near as can be.
NOT_FINITE = re.compile(r"(?<![a-z])(?:nan|inf|infinity)j?(?![a-z])", re.IGNORECASE)
SECONDS_TO_MAKE = 120.0  # so many problems at a time, else there are none with these settings:
AT_A_TIME = 50
SLOW = 120.0  # seconds to make all problems, from which on it is said


class ReasoningGym(QuestionTask):
    """One task of reasoning-gym.

    Args:
        config: its `name`, and whatever else its configuration has.
    """

    title = "a task of reasoning-gym"
    description = "answer a question that reasoning-gym makes up and scores"
    default_source = GENERATED
    columns = COLUMNS
    reasons = {  # noqa: RUF012 (a ClassVar in Task)
        CORRECT: "full score",
        NO_ANSWER: "no finished answer block",
        PARTIAL: "part of the score",
        WRONG: "no score",
    }
    how_to_get_data = "leave dataset_id_or_path out: the problems are made up, without network"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.name = str(self.config.get("name", ""))
        self.settings = {key: value for key, value in self.config.items() if key != "name"}
        self._check_name()
        self._check_settings()
        self._example = self._find_example()

    def load(self, source: Source) -> Dataset:
        """Make `max_samples` rows with question, answer and metadata (JSON) by the seed; some may be equal."""
        if source.name != GENERATED or source.revision is not None:
            given = f"{source.name!r}" + (f", revision {source.revision!r}" if source.revision else "")
            problem = Problem(
                "dataset_id_or_path", given, GENERATED, "leave it out", "reasoning-gym makes up its own problems"
            )
            raise UserError(str(problem))
        if source.max_samples < 1:
            raise UserError(f"max_samples is {source.max_samples}: it has to be at least 1")
        rows: list[dict[str, Any]] = []
        began, said = time.monotonic(), False
        while len(rows) < source.max_samples:
            first, end = len(rows), min(len(rows) + AT_A_TIME, source.max_samples)
            rows += self._make(source.max_samples, source.seed, first, end)
            needed = (time.monotonic() - began) / len(rows) * source.max_samples
            if needed > SLOW and not said:
                said = True
                text = "making %d problems of %s takes about %.0f minutes: a lower max_samples is faster"
                logger.warning(text, source.max_samples, self.name, needed / 60)
        return Dataset.from_list(rows, features=Features({column: Value("string") for column in COLUMNS}))

    def solved_example(self) -> tuple[Row, str]:
        """A problem of the data set and its solution."""
        row, answer = self._example
        return row, solving(answer)

    def generates(self, source: str) -> bool:
        """There is no other source."""
        return source == GENERATED

    def groups(self, row: Row) -> dict[str, str]:
        """The difficulty, where the data set says it in a word or a number."""
        difficulty = json.loads(row["metadata"]).get("difficulty")
        return {"difficulty": str(difficulty)} if isinstance(difficulty, str | int | float) else {}

    def judge(self, completion: str, row: Row) -> Verdict:
        """The score of the last answer block by the data set's own scorer; an answer that it fails on is wrong."""
        answer = last_answer(completion)
        if answer is None:
            return Verdict(0.0, NO_ANSWER, None)
        score = self._score(answer, row)
        reason = CORRECT if score == 1 else PARTIAL if score > 0 else WRONG
        return Verdict(score, reason, answer)

    def solution(self, row: Row) -> str | None:
        """The answer that the data set gives, if it gives one."""
        return None if row["answer"] is None else f"the answer: {row['answer']}"

    def _score(self, answer: str, row: Row) -> float:
        if len(answer) > MAX_ANSWER or (NOT_FINITE.search(answer) and not NOT_FINITE.search(row["answer"] or "")):
            return 0.0
        entry = {column: row[column] for column in COLUMNS}
        try:
            call = reasoning_gym_process().call
            score = call("score", self.name, self.settings, entry, answer, seconds=SECONDS_TO_SCORE)
        except StoppedError:
            return 0.0
        return float(min(max(score, 0.0), 1.0)) if score == score else 0.0  # NaN is not equal to itself

    def _make(self, size: int, seed: int, first: int, end: int) -> list[dict[str, Any]]:
        try:
            made = reasoning_gym_process().call(
                "make", self.name, self.settings, size, seed, first, end, seconds=SECONDS_TO_MAKE
            )
        except (ReasoningGymError, StoppedError) as error:
            cause = str(error) or f"no problem came within {SECONDS_TO_MAKE:.0f} seconds, or memory ran out"
            allowed = f"what reasoning-gym takes for {self.name}"
            raise TaskError(Problem("task_config", self.settings, allowed, "correct it", cause)) from error
        return list(made)

    def _check_name(self) -> None:
        try:
            known = reasoning_gym_process().call("names")
        except (ReasoningGymError, StoppedError) as error:
            problem = Problem(
                "task", f"'reasoning_gym/{self.name}'", "its package", "pip install reasoning-gym==0.1.25", str(error)
            )
            raise TaskError(problem) from error
        if self.name in known:
            return
        meant = nearest(self.name, known)
        cause = "it names none" if not self.name else "there is no such task in reasoning-gym"
        cause += f"; did you mean reasoning_gym/{meant}?" if meant else ""
        allowed = f"reasoning_gym/ and one of {', '.join(known)}"
        raise TaskError(Problem("task", f"'reasoning_gym/{self.name}'", allowed, "correct the name", cause))

    def _check_settings(self) -> None:
        known = reasoning_gym_process().call("settings", self.name)
        for key in self.settings:
            if key in known:
                continue
            meant = nearest(key, known)
            fix = f"set {OF_THE_RUN[key]} in the recipe" if key in OF_THE_RUN else "correct the key"
            cause = f"there is no {key}" + (f"; did you mean {meant}?" if meant else "")
            cause = f"{key} is not set here" if key in OF_THE_RUN else cause
            allowed = f"keys of {self.name}: {', '.join(known) or 'none'}"
            raise TaskError(Problem("task_config", self.settings, allowed, fix, cause))

    def _find_example(self) -> tuple[Row, str]:
        """A row, and an answer with full score: that of the row, or one that its metadata have."""
        (row,) = self._make(1, 0, first=0, end=1)
        others = [value for key, value in json.loads(row["metadata"]).items() if "answer" in key]
        texts = [value if isinstance(value, str) else json.dumps(value) for value in [row["answer"], *others] if value]
        for text in texts:
            if self._score(text.strip(), row) == 1:
                return row, text.strip()
        cause = "it comes without a solution that its own scorer accepts, so the preflight can't check the prompt"
        allowed = "a task of reasoning-gym with solutions"
        raise TaskError(Problem("task", f"'reasoning_gym/{self.name}'", allowed, "choose another", cause))
