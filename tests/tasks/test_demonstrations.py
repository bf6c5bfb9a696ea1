"""Demonstrations: right, in the format, true in all that they say of numbers, and the same for the same seed."""

import random
import re
from fractions import Fraction

import pytest

from mini_r1.tasks.countdown.demonstrations import write_demonstration
from mini_r1.tasks.countdown.puzzles import load_countdown
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.countdown.thinking import judge_thinking
from mini_r1.tasks.demonstrations import demonstrate
from mini_r1.tasks.gsm8k import Gsm8k
from mini_r1.tasks.reasoning_gym import ReasoningGym
from mini_r1.tasks.rewards import judge_equation, judge_format
from mini_r1.tasks.task import rows_of

COUNTDOWN = Countdown()


@pytest.mark.parametrize(("world", "count"), [("tiny", 300), ("countdown-3to4", 300), ("countdown-6", 5)])
def test_each_is_right_and_says_nothing_that_is_not_so(world: str, count: int) -> None:
    for row in rows_of(load_countdown(f"generated:{world}", max_samples=count, seed=7)):
        nums, target = row["nums"], row["target"]
        shown = demonstrate(COUNTDOWN, row, seed=1)
        assert shown and judge_equation(shown, target, nums).reward == 1.0 and judge_format(shown), (row, shown)
        thinking = judge_thinking(shown, nums, target)
        assert thinking.right == thinking.equations > 0, shown
        assert thinking.repeats == thinking.false_yes == thinking.false_no == 0
        for value, distance, side in re.findall(r"= ([\d/-]+)\. That is ([\d/]+) too (much|little)", shown):
            signed = Fraction(distance) if side == "much" else -Fraction(distance)
            assert Fraction(value) - target == signed != 0, shown


def test_some_attempts_fail_and_it_is_left_to_chance_how_many() -> None:
    row = {"nums": [19, 36, 55, 7], "target": 65}
    failures = [str(demonstrate(COUNTDOWN, row, seed)).count(" too ") for seed in range(200)]
    assert set(failures) == {0, 1, 2, 3, 4}
    assert 1.5 < sum(failures) / len(failures) < 2.5


def test_it_depends_on_problem_and_seed_alone() -> None:
    row = {"nums": [3, 25, 50, 7], "target": 128}
    assert demonstrate(COUNTDOWN, row, 42) == demonstrate(COUNTDOWN, row | {"difficulty": "easy"}, 42) is not None
    assert len({demonstrate(COUNTDOWN, row, seed) for seed in range(20)}) > 10


@pytest.mark.parametrize(("nums", "target"), [([1, 1], 5), ([2] * 9, 18)])
def test_where_the_solver_has_no_solution_there_is_none(nums: list[int], target: int) -> None:
    assert demonstrate(COUNTDOWN, {"nums": nums, "target": target}, 1) is None


@pytest.mark.parametrize(("nums", "target"), [([3, 3, 8, 8], 24), ([7], 7), ([1, 2], -3), ([5, 5, 1], 9)])
def test_fractions_negatives_and_single_numbers(nums: list[int], target: int) -> None:
    shown = write_demonstration(nums, target, random.Random(0))
    assert shown and judge_equation(shown, target, nums).reward == 1.0 and judge_format(shown), shown


def test_gsm8k_shows_its_worked_solution_without_the_calculators_notes() -> None:
    task = Gsm8k()
    row = {"question": "Half of 144?", "answer": "Half is 144/2 = <<144/2=72>>72.\n#### 72"}
    shown = demonstrate(task, row, 1)
    assert shown == " Half is 144/2 = 72.\n</think>\n<answer> 72 </answer>"
    assert task.judge(shown, row).reward == 1.0 and task.in_format(shown)
    assert demonstrate(task, {"question": "?", "answer": "#### 72"}, 1) is None


def test_other_tasks_take_the_column_of_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReasoningGym, "__init__", lambda self: None)
    monkeypatch.setattr(ReasoningGym, "key", lambda self, row: "one")
    task = ReasoningGym()  # without its library
    assert demonstrate(task, {"question": "?", "demonstration": " so </think>"}, 1) == " so </think>"
    assert demonstrate(task, {"question": "?"}, 1) is None
    assert demonstrate(task, {"question": "?", "demonstration": " "}, 1) is None
