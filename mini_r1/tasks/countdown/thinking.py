"""Search traces: how the tiny policy writes its thinking, and how that text is read back.

One *attempt* combines the numbers two at a time until one is left and says whether that is the target::

    9 + 4 = 13, 13 * 3 = 39 no
    9 - 4 = 5, 5 * 3 = 15 yes

The corpus for the tiny base is written here (`write_guesses`, `write_enumeration`), and the same module counts attempts
and checks the arithmetic inside any completion (`read_thinking`), so that "thinks longer" and "still calculates right"
are measured, and marks what is wrong with a line: a repeat, a number that isn't there, a "yes" that isn't true
(`mark_lines`).
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from operator import add, floordiv, mul, sub

from mini_r1.tasks.countdown.expression import NEGATE, SIGN_IN_ASCII, Expression, ExpressionError, parse

OPERATIONS = {"+": add, "-": sub, "*": mul, "/": floordiv}
SUCCESS, FAILURE = "yes", "no"
OPENER = "Let's try different combinations:"
ENUMERATES = "different combinations"  # what a model says, in these words or in more, where it turns to enumerating


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
    """All distinct attempts at these numbers with whole intermediate results from 0 to `max_result`, in a fixed order.

    Pairs are taken as the numbers stand and operators as given; all that follows from a first step comes before the
    next first step.

    >>> [a.working for a in enumerate_attempts([2, 3, 9], "+-", 12)]  # doctest: +NORMALIZE_WHITESPACE
    ['3 + 2 = 5, 9 - 5 = 4', '3 - 2 = 1, 9 + 1 = 10', '3 - 2 = 1, 9 - 1 = 8', '9 + 2 = 11, 11 - 3 = 8',
     '9 - 2 = 7, 7 + 3 = 10', '9 - 2 = 7, 7 - 3 = 4', '9 + 3 = 12, 12 - 2 = 10', '9 - 3 = 6, 6 + 2 = 8',
     '9 - 3 = 6, 6 - 2 = 4']
    """
    found: dict[str, Attempt] = {}
    stack: list[tuple[tuple[_Term, ...], tuple[str, ...]]] = [(tuple(_Term(n, str(n), False) for n in nums), ())]
    while stack:
        terms, steps = stack.pop()
        if len(terms) == 1:
            working = ", ".join(steps)
            found.setdefault(working, Attempt(working, terms[0].value, terms[0].text))
        following = [((term, *rest), (*steps, step)) for step, term, rest in _combine(terms, operators, max_result)]
        stack += reversed(following)
    return list(found.values())


def write_guesses(
    attempts: Sequence[Attempt], target: int, patience: int, insight: float, rng: random.Random
) -> tuple[str, bool]:
    """Write one completion (what follows `<think>`): guesses until success or until patience runs out.

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
    tried: list[Attempt] = []
    while True:
        solved = bool(right) and (not wrong or rng.random() < insight + (1 - insight) * chance)
        tried.append(rng.choice(right) if solved else wrong.pop())
        if solved or len(tried) >= patience or not (wrong or right):
            break
    return _write(tried, target), solved


def write_enumeration(attempts: Sequence[Attempt], target: int) -> str:
    """Write one completion that tries the attempts in their order until one reaches the target.

    Raises:
        ValueError: if none does.
    """
    solution = next((i for i, attempt in enumerate(attempts) if attempt.value == target), None)
    if solution is None:
        raise ValueError(f"no attempt makes {target}")
    return f"\n{OPENER}{_write(attempts[: solution + 1], target)}"


def _write(tried: Sequence[Attempt], target: int) -> str:
    lines = "".join(f"{a.working} {SUCCESS if a.value == target else FAILURE}\n" for a in tried)
    return f"\n{lines}</think>\n<answer> {tried[-1].equation} </answer>"


# --- reading back ----------------------------------------------------------------------------------------------------


class Mark(StrEnum):
    """What is wrong with a line of thinking; the values are the words of the report."""

    ARITHMETIC = "wrong arithmetic"
    FOREIGN = "not among the numbers"
    REPEAT = "repeat"
    FALSE_YES = "false yes"
    FALSE_NO = "false no"


@dataclass(frozen=True, slots=True)
class Equation:
    """`expression = result` as written; `right` says whether it is true."""

    postfix: tuple[int | str, ...]
    numbers: tuple[int, ...]  # that it takes, in the order written
    result: int
    right: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One line of thinking; with an equation in it, it is an attempt.

    Attributes:
        says: "yes" or "no" where the line ends in that word, in any case and with any punctuation after it.
        solves: whether it makes the target out of each number once, by arithmetic that is right.
        marks: what is wrong with it.
    """

    text: str
    equations: tuple[Equation, ...] = ()
    says: str | None = None
    solves: bool = False
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a thinking text contains, in numbers.

    Attributes:
        attempts: lines that hold an equation.
        right, equations: equations that are right, of how many.
        repeats, foreign: attempts so marked.
        false_yes, yes: attempts that end in "yes" and don't solve the puzzle, of all that end in it.
        false_no, solutions: attempts that end in "no" and solve the puzzle, of all that solve it.
        enumerates: whether a line without equations says that it tries different combinations.
    """

    attempts: int
    right: int
    equations: int
    repeats: int = 0
    foreign: int = 0
    false_yes: int = 0
    yes: int = 0
    false_no: int = 0
    solutions: int = 0
    enumerates: bool = False


def read_thinking(completion: str) -> Thinking:
    """Count the attempts and check the arithmetic inside the thinking of one completion.

    An attempt is a line that holds at least one equation between whole numbers; this also fits the free text of a
    larger model, where each try usually stands on a line of its own. Works on any text in linear time.

    >>> thinking = read_thinking("\\n9 + 4 = 13, 13 * 3 = 38 no\\n9 - 4 = 5 no\\n</think>\\n<answer> 1 </answer>")
    >>> thinking.attempts, thinking.right, thinking.equations
    (2, 2, 3)
    """
    return _count([Line(text, read_equations(text)) for text in _thinking_lines(completion)])


def judge_thinking(completion: str, nums: Sequence[int], target: int) -> Thinking:
    """Count all of `Thinking` in one completion for the puzzle (`nums`, `target`)."""
    return _count(mark_lines(completion, nums, target))


def _count(lines: Sequence[Line]) -> Thinking:
    equations = [equation for line in lines for equation in line.equations]
    marks = Counter(mark for line in lines for mark in line.marks)
    return Thinking(
        attempts=sum(bool(line.equations) for line in lines),
        right=sum(equation.right for equation in equations),
        equations=len(equations),
        repeats=marks[Mark.REPEAT],
        foreign=marks[Mark.FOREIGN],
        false_yes=marks[Mark.FALSE_YES],
        yes=sum(line.says == SUCCESS for line in lines),
        false_no=marks[Mark.FALSE_NO],
        solutions=sum(line.solves for line in lines),
        enumerates=any(ENUMERATES in line.text.lower() for line in lines if not line.equations),
    )


def mark_lines(completion: str, nums: Sequence[int], target: int) -> list[Line]:
    """Each line of the thinking of one completion, with what is wrong with it. Works on any text in linear time.

    A line that ends in yes or no completes an attempt, which earlier lines without either word may have begun. An
    attempt may use each number once, and each result once. In a line that says neither, as in free text, a number
    counts as foreign only if it is neither one of the puzzle's nor an earlier result. A repeat has the equations of an
    earlier line, whatever their order and that of the operands of + and of ×.

    >>> lines = mark_lines("7 + 3 = 10, 10 - 4 = 6 yes\\n3 + 7 = 10, 10 - 4 = 6 no\\n7 + 5 = 12 no", [3, 4, 7], 6)
    >>> [[mark.value for mark in line.marks] for line in lines]
    [[], ['repeat', 'false no'], ['not among the numbers']]
    """
    lines: list[Line] = []
    seen: set[tuple[str, ...]] = set()
    known, begun = set(nums), Counter(nums)  # numbers and results so far; what an attempt over several lines has left
    for text in _thinking_lines(completion):
        equations = read_equations(text)
        if not equations:
            lines.append(Line(text))
            continue
        says = match[1].lower() if (match := _CLAIM.search(text)) else None
        known.update(abs(equation.result) for equation in equations)
        left = [rest for pool in (Counter(nums), begun) if (rest := _take(equations, pool)) is not None]
        foreign = not left if says else any(n not in known for e in equations for n in e.numbers)
        key = _without_order(equations)
        lines.append(_judge(Line(text, equations, says), target, left, foreign, key in seen))
        seen.add(key)
        begun = left[-1] if left and not says else Counter(nums)
    return lines


def _judge(line: Line, target: int, left: Sequence[Counter[int]], foreign: bool, repeat: bool) -> Line:
    """The line with its marks; `left` holds what it may have left of the numbers, {target: 1} where it solves."""
    right = all(equation.right for equation in line.equations)
    solves = right and line.equations[-1].result == target and Counter({abs(target): 1}) in left
    found = {
        Mark.ARITHMETIC: not right,
        Mark.FOREIGN: foreign,
        Mark.REPEAT: repeat,
        Mark.FALSE_YES: line.says == SUCCESS and not solves,
        Mark.FALSE_NO: line.says == FAILURE and solves,
    }
    return replace(line, solves=solves, marks=tuple(mark for mark, holds in found.items() if holds))


def read_equations(line: str) -> tuple[Equation, ...]:
    """The equations `expression = whole number` in a line, where the expression joins two whole numbers or more.

    Markup before the line and words around an equation are ignored; what can't be read (a decimal, a fraction, a
    name) is not an equation. The signs are those that an answer may have.

    >>> [e.right for e in read_equations("- so 55 + 36 - 7 = 84, and 84 - 19 = 66.")]
    [True, False]
    """
    line = line.translate(SIGN_IN_ASCII)
    parts = line[_MARKUP.match(line).end() :].split("=")  # type: ignore[union-attr]  # it matches nothing, too
    found = []
    for before, after in pairwise(parts):
        result = _RESULT.match(after)
        expression = _expression_at_end(before) if result else None
        if result and expression:
            found.append(_equation(expression, int(result[1])))
    return tuple(found)


_MARKUP = re.compile(r"\s*(?:(?:[-*+•]|\d+[.)])\s)?[\s*$]*")  # of a list, bold, a formula
_RESULT = re.compile(r"\s*(-?[0-9]{1,9})(?!\d|\.\d|\s*/)")
_CLAIM = re.compile(rf"\b({SUCCESS}|{FAILURE})\W*$", re.IGNORECASE)
_CHARACTERS = "0123456789()+-*/ "
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")  # parse refuses 05; here it is the 5 that is meant
_SPACED_SIGN = re.compile(r"\s*\D\s")


def _thinking_lines(completion: str) -> list[str]:
    return completion.partition("</think>")[0].split("\n")


def _expression_at_end(text: str) -> Expression | None:
    """The expression that a text ends in, if it joins numbers and nothing before it belongs to it."""
    rest = text.rstrip(_CHARACTERS)
    run = text[len(rest) :]
    unclosed = run.count("(") - run.count(")")
    if unclosed > 0 and run.lstrip().startswith("(" * unclosed):  # as in "(7 + 19 = 26)"
        run = run.lstrip()[unclosed:]
    is_cut_off = (rest.endswith(".") and run[:1].isdigit()) or (rest and _SPACED_SIGN.match(run))  # 1.5 + 1; x - 5 + 1
    if is_cut_off:
        return None
    try:
        expression = parse(_LEADING_ZEROS.sub("", run))
    except ExpressionError:
        return None
    return expression if len(expression.numbers) > 1 else None


def _equation(expression: Expression, result: int) -> Equation:
    try:
        right = expression.value == result
    except ExpressionError:  # division by zero
        right = False
    return Equation(expression.postfix, expression.numbers, result, right)


def _take(equations: Sequence[Equation], pool: Counter[int]) -> Counter[int] | None:
    """What is left of the numbers in the pool, results included; None if an equation takes one that isn't there."""
    left = pool.copy()
    for equation in equations:
        left.subtract(equation.numbers)
        if any(left[number] < 0 for number in equation.numbers):
            return None
        left[abs(equation.result)] += 1  # the sign of -5 belongs to the expression that takes it
    return left


def _without_order(equations: Sequence[Equation]) -> tuple[str, ...]:
    """The same for the same calculation, in whatever order the equations, and the operands of + and × stand."""
    return tuple(sorted(f"{_sorted_operands(e.postfix)} = {e.result}" for e in equations))


def _sorted_operands(postfix: Sequence[int | str]) -> str:
    stack: list[str] = []
    for item in postfix:
        if isinstance(item, int):
            stack.append(str(item))
        elif item == NEGATE:
            stack.append(f"-{stack.pop()}")
        else:
            pair = [stack.pop(), stack.pop()][::-1]
            stack.append(f"({f' {item} '.join(sorted(pair) if item in '+*' else pair)})")
    return stack[0]
