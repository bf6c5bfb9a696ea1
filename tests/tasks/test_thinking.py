"""Search traces: what the tiny base reads, and how a thinking text is measured."""

import random
import time

import pytest

from mini_r1.tasks.countdown.thinking import (
    OPENER,
    Mark,
    Thinking,
    enumerate_attempts,
    judge_thinking,
    mark_lines,
    read_thinking,
    write_enumeration,
    write_guesses,
)
from mini_r1.tasks.rewards import equation_reward_func, format_reward_func

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
def test_guesses_are_scored_as_it_says(seed: int) -> None:
    attempts = enumerate_attempts(NUMS, OPERATORS, LARGEST)
    text, solved = write_guesses(attempts, 39, patience=3, insight=0.2, rng=random.Random(seed))
    assert equation_reward_func([text], [39], [NUMS]) == [float(solved)]
    assert format_reward_func([text], [39]) == [1.0]
    thinking = read_thinking(text)
    assert 1 <= thinking.attempts <= 3
    assert thinking.right == thinking.equations == 2 * thinking.attempts
    assert [line.marks for line in mark_lines(text, NUMS, 39) if line.marks] == []  # the corpus teaches none of it


def test_nothing_is_tried_twice_and_patience_ends_in_success() -> None:
    attempts = enumerate_attempts(NUMS, OPERATORS, LARGEST)
    text, solved = write_guesses(attempts, 39, patience=1000, insight=0.0, rng=random.Random(0))
    lines = text.partition("</think>")[0].strip().splitlines()
    assert solved
    assert len(set(lines)) == len(lines)
    assert [line.endswith(" yes") for line in lines] == [False] * (len(lines) - 1) + [True]


def test_insight_finds_the_solution_at_once() -> None:
    attempts = enumerate_attempts(NUMS, OPERATORS, LARGEST)
    text, solved = write_guesses(attempts, 39, patience=1, insight=1.0, rng=random.Random(0))
    assert solved
    assert read_thinking(text).attempts == 1


def test_enumeration_tries_everything_in_order_until_it_succeeds() -> None:
    attempts = enumerate_attempts(NUMS, OPERATORS, LARGEST)
    first = next(i for i, attempt in enumerate(attempts) if attempt.value == 15)
    text = write_enumeration(attempts, 15)
    opener, *lines = text.partition("</think>")[0].strip().splitlines()
    assert opener == OPENER
    assert lines == [f"{a.working} {'yes' if a.value == 15 else 'no'}" for a in attempts[: first + 1]]
    assert first == 5  # two first steps, and all that follows from the first of them
    assert (equation_reward_func([text], [15], [NUMS]), format_reward_func([text], [15])) == ([1.0], [1.0])
    assert judge_thinking(text, NUMS, 15) == Thinking(6, 12, 12, yes=1, solutions=1, enumerates=True)
    with pytest.raises(ValueError, match="no attempt makes 0"):
        write_enumeration(enumerate_attempts([1, 2], "+", LARGEST), 0)


@pytest.mark.parametrize(
    ("text", "enumerates"),
    [
        ("Let me see. I will try DIFFERENT COMBINATIONS of these:\n1 + 2 = 3", True),
        ("9 + 4 = 13, 13 * 3 = 39 yes", False),
        ("different combinations: 1 + 2 = 3", False),  # a line with an equation is an attempt
        ("</think>\nLet's try different combinations:", False),
    ],
)
def test_who_says_so_enumerates(text: str, enumerates: bool) -> None:
    assert read_thinking(text).enumerates is enumerates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Thinking(0, 0, 0)),
        ("no equation here\n", Thinking(0, 0, 0)),
        ("3 + 4 = 8", Thinking(1, 0, 1)),
        ("7 × 3 = 21, then 21 − 1 = 20\nor 6 ÷ 4 = 2", Thinking(2, 2, 3)),
        ("7 ⋅ 3 ＝ 21, 6 ∕ 2 = 3, 9 – 4 = 5\n9 ‐ 4 = 5, 2 ∗ 3 = 6, 2 ∙ 3 = 6\n6 ⁄ 2 = 4", Thinking(3, 6, 7)),
        ("3 ＋ 4 ＝ 7, 9 － 4 = 5, 2 ＊ 3 = 6, 6 ／ 3 = 2", Thinking(1, 4, 4)),
        ("３ + 4 = 7, ٣ + 4 = 7", Thinking(0, 0, 0)),
        ("4 - 9 = -5", Thinking(1, 1, 1)),
        ("4 − 9 = −5", Thinking(1, 1, 1)),
        ("5 / 0 = 5", Thinking(1, 0, 1)),
        ("1 + 1 = 2</think>\n<answer> 3 + 3 = 6 </answer>", Thinking(1, 1, 1)),
        ("1.5 + 1 = 2", Thinking(0, 0, 0)),
    ],
)
def test_reading(text: str, expected: Thinking) -> None:
    assert read_thinking(text) == expected


@pytest.mark.parametrize(
    ("line", "right", "equations"),
    [
        ("55 + 36 - 7 - 19 = 65", 1, 1),  # not "7 - 19 = 65"
        ("(55 - 36) × (19 - 7) = 228.", 1, 1),
        ("55 + 36 = 91 - 7 = 84", 2, 2),
        ("so 55+36=91, then 91-7 = 85.", 1, 2),
        ("- 55 + 36 = 91", 1, 1),
        ("* **55 + 36 = 91**", 1, 1),
        ("12. $55 + 36 = 91$", 1, 1),
        ("3) 55 + 36 = 91", 1, 1),
        ("(7 + 19 = 26)", 1, 1),
        ("it is -5 + 10 = 5", 1, 1),
        ("76 + 00 = 76", 1, 1),
        ("x - 5 + 3 = 8", 0, 0),  # of a name: who knows
        ("1.5 * 2 = 3", 0, 0),
        ("6 / 4 = 1.5", 0, 0),
        ("6 / 4 = 3/2", 0, 0),
        ("91 = 91", 0, 0),
    ],
)
def test_free_text_is_read_as_it_is_meant(line: str, right: int, equations: int) -> None:
    assert read_thinking(line) == Thinking(int(equations > 0), right, equations)


R, F, A, Y, N = Mark.REPEAT, Mark.FOREIGN, Mark.ARITHMETIC, Mark.FALSE_YES, Mark.FALSE_NO


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({"9 + 4 = 13, 13 * 3 = 39 yes": []}, "solved"),
        ({"9 + 4 = 13, 13 * 3 = 39 YES!": []}, "solved, said otherwise"),
        ({"(9 + 4) × 3 = 39 yes": []}, "solved in one equation"),
        ({"9 + 4 = 13, 13 * 3 = 39 no": [N]}, "solved without noticing"),
        ({"9 - 4 = 5, 5 * 3 = 15 yes": [Y]}, "another value"),
        ({"36 + 3 = 39 yes": [F, Y]}, "a number made up"),
        ({"9 + 9 = 18 no": [F]}, "a number taken twice"),
        ({"9 + 4 = 13, 9 * 3 = 27 no": [F]}, "a number taken again"),
        ({"9 * 4 = 36, 36 + 3 = 38 no": [A]}, "wrong arithmetic"),
        ({"9 * 4 = 36, 36 + 3 = 38 yes": [A, Y]}, "wrong arithmetic, and another value"),
        ({"9 + 4 = 14, 14 * 3 = 39 yes": [A, Y]}, "the target by wrong arithmetic"),
        ({"9 + 4 = 13 no": [], "4 + 9 = 13 no": [R]}, "operands swapped"),
        ({"9 × 4 = 36 no": [], "4 * 9 = 36 yes": [R, Y]}, "signs of another kind, another verdict"),
        ({"9 - 4 = 5 no": [], "4 - 9 = -5 no": []}, "not the same: - has an order"),
        ({"9 + 4 = 14 no": [A], "9 + 4 = 13 no": []}, "corrected, not repeated"),
        ({"4 - 9 = -5, -5 + 3 = -2 no": []}, "a negative result is taken as such"),
        ({"39 * 1 = 39 yes": [F, Y], "no equation yes": []}, "only attempts are judged"),
        ({"Try 9 + 4 = 13.": [], "Then 13 * 3 = 39. Yes": []}, "an attempt over two lines"),
        ({"Try 9 + 4 = 13.": [], "Or 9 - 4 = 5.": [], "5 * 3 = 15, no": []}, "begun anew in free text"),
        ({"Try 9 + 5 = 14.": [F]}, "a number made up in free text"),
        ({"9 + 4 = 13 no": [], "13 * 3 = 39 yes": [F, Y]}, "an attempt that was closed is not gone on with"),
    ],
)
def test_marks(lines: dict[str, list[Mark]], expected: str) -> None:
    completion = "\n".join(["", *lines, "</think>", "<answer> 9 + 9 = 18 </answer>"])
    found = {line.text: set(line.marks) for line in mark_lines(completion, [9, 4, 3], 39)}
    assert {text: found[text] for text in lines} == {text: set(marks) for text, marks in lines.items()}, expected


def test_same_equations_in_another_order_are_a_repeat() -> None:
    text = "1 + 2 = 3, 5 - 4 = 1, 3 + 1 = 4 no\n5 - 4 = 1, 2 + 1 = 3, 1 + 3 = 4 no"
    assert [line.marks for line in mark_lines(text, [1, 2, 4, 5], 9)] == [(), (R,)]


def test_judging_counts_what_is_marked() -> None:
    text = "9 - 4 = 5, 5 * 3 = 15 yes\n4 + 9 = 13, 13 * 3 = 39 no\n8 + 9 = 17 no\n9 - 4 = 5, 5 * 3 = 15 no\nhm yes"
    judged = judge_thinking(f"{text}\n</think>\n<answer> 1 </answer>", [9, 4, 3], 39)
    assert judged == Thinking(4, 7, 7, repeats=1, foreign=1, false_yes=1, yes=1, false_no=1, solutions=1)
    assert read_thinking(text) == Thinking(4, 7, 7)


@pytest.mark.parametrize(
    "text",
    [
        *("1 + " * 16_000, "9" * 65_536, "1+1=2," * 10_000, "\n" * 65_536, " " * 65_536, "1+1=2\n" * 10_000),
        *("1+1=2 no\n" * 7_000, "(" * 65_536 + "=3", "1 " * 32_000 + "=3", "no " * 20_000 + "1+1=2", "1+1=" * 16_000),
        *(
            "-" * 65_536 + "=3",
            "= " * 32_000,
            "1+1= " + " " * 65_000,
            "".join(f"{i}+1={i + 1}\n" for i in range(6_000)),
        ),
    ],
    ids=lambda text: repr(text[:8]),
)
def test_reading_takes_linear_time(text: str) -> None:
    started = time.process_time()
    judge_thinking(text, NUMS, 39)
    assert time.process_time() - started < 2.0  # 0.05 ms a line; were it quadratic, minutes
