"""The Countdown numbers game as a task: its puzzles, judged by the exact verifier."""

import argparse
import random
from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from mini_r1.program.problems import UserError
from mini_r1.tasks.countdown.demonstrations import write_demonstration
from mini_r1.tasks.countdown.expression import MAX_DIGITS
from mini_r1.tasks.countdown.puzzles import DEFAULT_DATASET, GENERATED_PREFIX, is_on_hub, load_countdown, puzzle_key
from mini_r1.tasks.countdown.solver import MAX_NUMBERS, difficulty, solve
from mini_r1.tasks.countdown.thinking import judge_thinking, mark_lines, read_thinking
from mini_r1.tasks.rewards import (
    Reason,
    equation_reward_func,
    format_reward_func,
    judge_equation,
    judge_format,
    numbers_reward_func,
)
from mini_r1.tasks.task import RewardFunction, Row, Source, Task, Verdict

USER_PROMPT = (
    "Using the numbers {nums}, create an equation that equals {target}. You can use basic arithmetic operations "
    "(+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. And return the final "
    "equation and answer in <answer> </answer> tags, for example <answer> (1 + 2) / 3 = 1 </answer>."
)
LARGEST = 10**MAX_DIGITS - 1  # what the verifier reads
# Numerator and denominator in `Thinking`; each equation or attempt counts alike, so that a long thinking weighs more.
RATIOS = {
    "arithmetic": ("right", "equations"),
    "repeats": ("repeats", "attempts"),
    "foreign": ("foreign", "attempts"),
    "false_yes": ("false_yes", "yes"),
    "false_no": ("false_no", "solutions"),
}


class Countdown(Task):
    """Use each of the given numbers once to make an equation that reaches the target."""

    title = "the Countdown numbers game"
    description = "use each given number exactly once, with + - * and /, to make an equation that reaches the target"
    default_source = DEFAULT_DATASET
    columns = ("nums", "target")
    reasons = {  # noqa: RUF012 (a ClassVar in Task)
        Reason.CORRECT.value: "uses every number once and reaches the target",
        Reason.NO_ANSWER.value: "no finished answer block",
        Reason.NOT_ALLOWED.value: "something else than numbers, + − × ÷ and brackets",
        Reason.WRONG_NUMBERS.value: "a number left out, used twice or made up",
        Reason.DIVISION_BY_ZERO.value: "divides by zero",
        Reason.WRONG_VALUE.value: "does not reach the target",
    }
    group_order = {"difficulty": ("easy", "medium", "hard", "unsolvable", "unknown")}  # noqa: RUF012
    default_rewards = ("format", "equation")
    how_to_get_data = "correct it, or use dataset_id_or_path: generated:countdown-3to4, which needs no network"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        if self.config:
            raise ValueError(f"Countdown has no settings, but {', '.join(map(str, self.config))} is given")

    def load(self, source: Source) -> Dataset:
        """Rows with nums, target and, where the source has it, difficulty: see `load_countdown`."""
        return load_countdown(
            source.name,
            split=source.split,
            max_samples=source.max_samples,
            seed=source.seed,
            revision=source.revision,
        )

    def key(self, row: Row) -> str:
        """The numbers in any order, and the target.

        >>> Countdown().key({"nums": [3, 1, 2], "target": 6})
        '1,2,3:6'
        """
        nums, target = puzzle_key(row["nums"], row["target"])
        return f"{','.join(map(str, nums))}:{target}"

    def question(self, row: Row) -> str:
        """What the user asks, in the words of the recipe that this project reproduces."""
        return USER_PROMPT.format(nums=list(row["nums"]), target=row["target"])

    def show(self, row: Row) -> str:
        """The numbers and the target.

        >>> Countdown().show({"nums": [3, 1, 2], "target": 6})
        '3, 1, 2 → 6'
        """
        return f"{', '.join(map(str, row['nums']))} → {row['target']}"

    def solved_example(self) -> tuple[Row, str]:
        """A solution with all ten digits, all four operators, and brackets."""
        working = " 60 / 4 = 15, 15 * 13 = 195,\n195 + 28 - 92 = 131"
        answer = "60 / 4 * 13 + 28 - (97 - 5) = 131"
        row = {"nums": [60, 4, 13, 28, 97, 5], "target": 131}
        return row, f"{working} </think>\n<answer> {answer} </answer>"

    def demonstrate(self, row: Row, chance: random.Random) -> str | None:
        """A search in plain language, some attempts of which fail; None for a puzzle without a solution."""
        nums = list(row["nums"])
        return write_demonstration(nums, row["target"], chance) if len(nums) <= MAX_NUMBERS else None

    def generates(self, source: str) -> bool:
        """Whether a source is generated:WORLD."""
        return source.startswith(GENERATED_PREFIX)

    def is_on_hub(self, source: str) -> bool:
        """Whether a source is neither generated nor a local path."""
        return is_on_hub(source)

    def groups(self, row: Row) -> dict[str, str]:
        """How hard a puzzle is, computed where the row does not say it, and how many numbers it has."""
        how_many = f"{len(row['nums'])} numbers"
        return {"difficulty": row.get("difficulty") or _difficulty(row), "how many numbers": how_many}

    @property
    def rewards(self) -> Mapping[str, RewardFunction]:
        """The two rewards of R1-Zero, and partial credit for an answer with the right numbers."""
        return {"format": format_reward_func, "equation": equation_reward_func, "numbers": numbers_reward_func}

    def judge(self, completion: str, row: Row) -> Verdict:
        """The verdict of the exact verifier: see `mini_r1.tasks.rewards`."""
        return judge_equation(completion, row["target"], row["nums"])

    def in_format(self, completion: str) -> bool:
        """Whether it is one thinking block, one answer block and the end."""
        return judge_format(completion)

    def measure(self, completion: str, row: Row) -> dict[str, tuple[float, float]]:
        """How the policy searches: attempts per completion, and what is right and wrong with them."""
        thinking = judge_thinking(completion, row["nums"], row["target"])
        ratios = {name: (getattr(thinking, of), getattr(thinking, out_of)) for name, (of, out_of) in RATIOS.items()}
        return {"attempts": (thinking.attempts, 1), "enumerating": (thinking.enumerates, 1)} | ratios

    def measure_in_training(self, completion: str, row: Row) -> dict[str, tuple[float, float]]:
        """Attempts, enumerating and arithmetic, which take a third of the time that all take."""
        thinking = read_thinking(completion)
        return {
            "attempts": (thinking.attempts, 1),
            "enumerating": (thinking.enumerates, 1),
            "arithmetic": (thinking.right, thinking.equations),
        }

    def marks(self, completion: str, row: Row) -> list[list[str]]:
        """What is wrong with each line of the thinking."""
        lines = mark_lines(completion, row["nums"], row["target"])
        return [[mark.value for mark in line.marks] for line in lines]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """--numbers and --target."""
        parser.add_argument("--numbers", type=int, nargs="+", required=True, help="use each exactly once")
        parser.add_argument("--target", type=int, required=True, help="what the equation is to equal")

    def read_arguments(self, arguments: argparse.Namespace) -> Row:
        """The puzzle, if it is one that the verifier and the solver take."""
        nums, target = arguments.numbers, arguments.target
        for wrong, name, value, allowed in (
            (not 2 <= len(nums) <= MAX_NUMBERS, "numbers", nums, f"2 to {MAX_NUMBERS} whole numbers"),
            (min(nums) < 1, "numbers", min(nums), "whole numbers above 0"),
            (max(nums) > LARGEST, "numbers", max(nums), f"numbers of at most {MAX_DIGITS} digits"),
            (abs(target) > LARGEST, "target", target, f"at most {MAX_DIGITS} digits"),
        ):
            if wrong:
                raise UserError(f"--{name} {value!s:.60}: give {allowed}")
        return {"nums": nums, "target": target}

    def solution(self, row: Row) -> str | None:
        """A solution by the solver, or the statement that none exists."""
        found: Any = solve(row["nums"], row["target"])
        return f"a solution: {found}" if found else "no solution exists"


def _difficulty(row: Row) -> str:
    nums, target = row["nums"], row["target"]
    return (difficulty(nums, target) or "unsolvable") if len(nums) <= MAX_NUMBERS else "unknown"
