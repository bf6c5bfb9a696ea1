"""Search traces: what the tiny base reads, and how a thinking text is measured."""

import random
import time

import pytest

from mini_r1.rewards import equation_reward_func, format_reward_func
from mini_r1.traces import Thinking, enumerate_attempts, read_thinking, write_trace

NUMS, OPERATORS, LARGEST = [9, 4, 3], "+-*/", 200


def test_attempts_are_distinct_and_their_equations_have_their_value() -> None:
    attempts = enumerate_attempts(NUMS, OPERATORS, LARGEST)
    assert len({attempt.working for attempt in attempts}) == len(attempts) > 20
    answers = [f"</think><answer>{attempt.equation}</answer>" for attempt in attempts]
    targets = [attempt.value for attempt in attempts]
    assert equation_reward_func(answers, targets, [NUMS] * len(attempts)) == [1.0] * len(attempts)


def test_attempts_stay_whole_and_within_bounds() -> None:
    for attempt in enumerate_attempts([99, 98, 7], OPERATORS, LARGEST):
        results = [int(step.split(" = ")[1]) for step in attempt.working.split(", ")]
        assert all(0 <= result <= LARGEST for result in results)


@pytest.mark.parametrize("seed", range(20))
def test_trace_is_scored_as_it_says(seed: int) -> None:
    attempts = enumerate_attempts(NUMS, OPERATORS, LARGEST)
    text, solved = write_trace(attempts, 39, patience=3, insight=0.2, rng=random.Random(seed))
    assert equation_reward_func([text], [39], [NUMS]) == [float(solved)]
    assert format_reward_func([text], [39]) == [1.0]
    thinking = read_thinking(text)
    assert 1 <= thinking.attempts <= 3
    assert thinking.right == thinking.equations == 2 * thinking.attempts


def test_nothing_is_tried_twice_and_patience_ends_in_success() -> None:
    attempts = enumerate_attempts(NUMS, OPERATORS, LARGEST)
    text, solved = write_trace(attempts, 39, patience=1000, insight=0.0, rng=random.Random(0))
    lines = text.partition("</think>")[0].strip().splitlines()
    assert solved
    assert len(set(lines)) == len(lines)
    assert [line.endswith(" yes") for line in lines] == [False] * (len(lines) - 1) + [True]


def test_insight_finds_the_solution_at_once() -> None:
    attempts = enumerate_attempts(NUMS, OPERATORS, LARGEST)
    text, solved = write_trace(attempts, 39, patience=1, insight=1.0, rng=random.Random(0))
    assert solved
    assert read_thinking(text).attempts == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Thinking(0, 0, 0)),
        ("no equation here\n", Thinking(0, 0, 0)),
        ("3 + 4 = 8", Thinking(1, 0, 1)),
        ("7 × 3 = 21, then 21 − 1 = 20\nor 6 ÷ 4 = 2", Thinking(2, 2, 3)),
        ("4 - 9 = -5", Thinking(1, 1, 1)),
        ("5 / 0 = 5", Thinking(1, 0, 1)),
        ("1 + 1 = 2</think>\n<answer> 3 + 3 = 6 </answer>", Thinking(1, 1, 1)),
        ("1.5 + 1 = 2", Thinking(0, 0, 0)),
    ],
)
def test_reading(text: str, expected: Thinking) -> None:
    assert read_thinking(text) == expected


@pytest.mark.parametrize("text", ["1 + " * 16_000, "9" * 65_536, "1+1=2," * 10_000, "\n" * 65_536, " " * 65_536])
def test_reading_takes_linear_time(text: str) -> None:
    started = time.perf_counter()
    read_thinking(text)
    assert time.perf_counter() - started < 1.0
