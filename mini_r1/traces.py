"""Search traces: how the tiny policy writes its thinking, and how a thinking text is read back.

One *attempt* combines the numbers two at a time until one is left and says whether that is the target::

    9 + 4 = 13, 13 * 3 = 39 no
    9 - 4 = 5, 5 * 3 = 15 yes

The corpus for the tiny base is written here (`write_trace`), and the same module counts attempts and checks the
arithmetic inside any completion (`read_thinking`), so that "thinks longer" and "still calculates right" are measured.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import add, floordiv, mul, sub

OPERATIONS = {"+": add, "-": sub, "*": mul, "/": floordiv}
SUCCESS, FAILURE = "yes", "no"


@dataclass(frozen=True)
class Attempt:
    """One complete way of combining the numbers: its working, its value and the equation it stands for."""

    working: str
    value: int
    equation: str


@dataclass(frozen=True)
class _Term:
    value: int
    text: str  # the expression so far; composite terms are bracketed by their user
    composite: bool

    def __str__(self) -> str:
        return f"({self.text})" if self.composite else self.text


def _apply(high: int, operator: str, low: int, max_result: int) -> int | None:
    """The result of `high operator low` if it is whole and between 0 and `max_result`, else None."""
    if operator == "/" and (low == 0 or high % low):
        return None
    result: int = OPERATIONS[operator](high, low)
    return result if 0 <= result <= max_result else None


def _combine(
    terms: tuple[_Term, ...], operators: str, max_result: int
) -> Iterator[tuple[str, _Term, tuple[_Term, ...]]]:
    """Every legal next step, larger number first: its text, the new term and the terms left beside it."""
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            high, low = (terms[i], terms[j]) if terms[i].value >= terms[j].value else (terms[j], terms[i])
            rest = terms[:i] + terms[i + 1 : j] + terms[j + 1 :]
            for operator in operators:
                result = _apply(high.value, operator, low.value, max_result)
                if result is not None:
                    step = f"{high.value} {operator} {low.value} = {result}"
                    yield step, _Term(result, f"{high} {operator} {low}", composite=True), rest


def enumerate_attempts(nums: Sequence[int], operators: str, max_result: int) -> list[Attempt]:
    """All distinct attempts at these numbers with whole intermediate results from 0 to `max_result`.

    >>> [a.working for a in enumerate_attempts([2, 3], "+-", 200)]
    ['3 + 2 = 5', '3 - 2 = 1']
    """
    found: dict[str, Attempt] = {}
    stack: list[tuple[tuple[_Term, ...], tuple[str, ...]]] = [(tuple(_Term(n, str(n), False) for n in nums), ())]
    while stack:
        terms, steps = stack.pop()
        if len(terms) == 1:
            working = ", ".join(steps)
            found[working] = Attempt(working, terms[0].value, terms[0].text)
            continue
        for step, term, rest in _combine(terms, operators, max_result):
            stack.append(((term, *rest), (*steps, step)))
    return [found[working] for working in sorted(found)]


def write_trace(
    attempts: Sequence[Attempt], target: int, patience: int, insight: float, rng: random.Random
) -> tuple[str, bool]:
    """Write one completion (what follows `<think>`): a search that stops at success or when patience runs out.

    Args:
        attempts: everything that can be tried (`enumerate_attempts`); nothing is tried twice.
        patience: how many failures are borne before the last attempt is answered although it is wrong (>= 1).
        insight: probability that an attempt is a known solution rather than a random one.

    Returns:
        The text from the first newline to `</answer>`, and whether the answer is right.
    """
    right = [a for a in attempts if a.value == target]
    wrong = [a for a in attempts if a.value != target]
    rng.shuffle(wrong)
    chance = len(right) / max(1, len(attempts))
    lines: list[str] = []
    while True:
        solved = bool(right) and (not wrong or rng.random() < insight + (1 - insight) * chance)
        attempt = rng.choice(right) if solved else wrong.pop()
        lines.append(f"{attempt.working} {SUCCESS if solved else FAILURE}\n")
        if solved or len(lines) >= patience or not (wrong or right):
            break
    return f"\n{''.join(lines)}</think>\n<answer> {attempt.equation} </answer>", solved


_STEP = re.compile(r"(?<![\d.])(\d{1,9}) ?([-+*/×÷−]) ?(\d{1,9}) ?= ?(-?\d{1,9})(?![\d.])")
_ASCII_OPERATOR = str.maketrans("×÷−", "*/-")


@dataclass(frozen=True)
class Thinking:
    """What a thinking text contains: attempts made, and equations `a op b = c` that are right, of how many."""

    attempts: int
    right: int
    equations: int


def read_thinking(completion: str) -> Thinking:
    """Count the attempts and check the arithmetic inside the thinking of one completion.

    An attempt is a line that holds at least one equation `a op b = c`; this also fits the free text of a larger model,
    where each try usually stands on a line of its own. Works on any text in linear time.

    >>> read_thinking("\\n9 + 4 = 13, 13 * 3 = 38 no\\n9 - 4 = 5, 5 * 3 = 15 yes\\n</think>\\n<answer> 1 </answer>")
    Thinking(attempts=2, right=3, equations=4)
    """
    attempts = right = equations = 0
    for line in completion.partition("</think>")[0].split("\n"):
        steps = _STEP.findall(line)
        attempts += bool(steps)
        equations += len(steps)
        right += sum(_is_right(*step) for step in steps)
    return Thinking(attempts, right, equations)


def _is_right(left: str, operator: str, right: str, result: str) -> bool:
    a, b, c = int(left), int(right), int(result)
    operator = operator.translate(_ASCII_OPERATOR)
    if operator == "/":
        return b != 0 and a == b * c
    return bool(OPERATIONS[operator](a, b) == c)
