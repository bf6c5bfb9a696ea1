"""Demonstrations for a cold start: a search for a puzzle's solution in plain language, as R1's first step used them.

A policy that never solves a puzzle gets no reward to learn from. It is shown how first: what is wanted, in words; some
attempts that fail, with a check of each; the one that succeeds; and the answer, in the format that the rewards want.
Everything that is said of numbers is true, and the verifier accepts the answer. How many attempts fail, and which, is
left to chance, so that the policy is shown searching, not knowing.
"""

import random
from collections.abc import Sequence
from fractions import Fraction

from mini_r1.tasks.countdown.expression import NEGATE, parse
from mini_r1.tasks.countdown.solver import solve

FAILURES = (0, 1, 2, 3, 4)  # attempts that fail before the one that succeeds, with the odds of each number
ODDS = (1, 3, 3, 2, 1)
LARGEST = 10_000  # what an attempt's numbers may grow to
TRIES = 20  # at finding another attempt that fails
OPENINGS = (
    "I have the numbers {numbers} and want to make {target}.",
    "The target is {target}, and the numbers are {numbers}. Each of them is used exactly once.",
    "Let me see how {numbers} can be combined to give {target}.",
)
FIRST, LATER = ("First I try", "Let me try", "I begin with"), ("Let me try", "Another way:", "What about", "Next I try")
SUCCESSES = ("That is the target, and every number is used once.", "That works: {target} is reached with all numbers.")

Step = tuple[Fraction, str, Fraction, Fraction]  # a, operator, b, result


def write_demonstration(nums: Sequence[int], target: int, chance: random.Random) -> str | None:
    """A completion that solves a puzzle, from what follows `<think>` to `</answer>`; None if it has no solution.

    >>> print(write_demonstration([19, 36, 55], 72, random.Random(4)).strip())
    I have the numbers 19, 36 and 55 and want to make 72.
    First I try 55 - 36 = 19, then 19 + 19 = 38. That is 34 too little.
    What about 36 + 55 = 91, then 91 - 19 = 72. That works: 72 is reached with all numbers.
    </think>
    <answer> 36 + 55 - 19 </answer>
    """
    solution = solve(nums, target)
    if solution is None:
        return None
    named = _listed(nums)
    lines = [chance.choice(OPENINGS).format(numbers=named, target=target)]
    tried = {frozenset(_steps(solution))}
    failures = [_failure(nums, target, tried, chance) for _ in range(chance.choices(FAILURES, ODDS)[0])]
    for steps in filter(None, failures):
        turn = chance.choice(FIRST if len(lines) == 1 else LATER)
        lines.append(f"{turn} {_worked(steps)}. {_verdict(steps[-1][-1], target)}")
    turn = chance.choice(FIRST if len(lines) == 1 else LATER)
    found = _worked(_steps(solution)) or solution
    lines.append(f"{turn} {found}. {chance.choice(SUCCESSES).format(target=target)}")
    working = "\n".join(lines)
    return f" {working}\n</think>\n<answer> {solution} </answer>"


def _listed(nums: Sequence[int]) -> str:
    """The numbers as a person lists them.

    >>> _listed([3, 1, 2])
    '3, 1 and 2'
    """
    *first, last = map(str, nums)
    return f"{', '.join(first)} and {last}" if first else last


def _steps(solution: str) -> list[Step]:
    """A solution one operation at a time."""
    steps: list[Step] = []
    stack: list[Fraction] = []
    for item in parse(solution).postfix:
        if isinstance(item, int):
            stack.append(Fraction(item))
        elif item == NEGATE:
            stack.append(-stack.pop())
        else:
            right, left = stack.pop(), stack.pop()
            steps.append((left, item, right, _apply(left, item, right)))
            stack.append(steps[-1][-1])
    return steps


def _apply(left: Fraction, operator: str, right: Fraction) -> Fraction:
    return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[operator](right)


def _failure(nums: Sequence[int], target: int, tried: set[frozenset[Step]], chance: random.Random) -> list[Step] | None:
    """An attempt with whole numbers that misses the target and has not been made; None if none is found."""
    for _ in range(TRIES):
        left, steps = [Fraction(number) for number in nums], list[Step]()
        while len(left) > 1:
            chance.shuffle(left)
            high, low = max(left[:2]), min(left[:2])
            operators = [sign for sign in "+-*/" if sign != "/" or (low and not high % low)]
            operator = chance.choice(operators)
            result = _apply(high, operator, low)
            steps.append((high, operator, low, result))
            left[:2] = [result]
        missed = steps and left[0] != target and all(step[-1] <= LARGEST for step in steps)
        if missed and frozenset(steps) not in tried:
            tried.add(frozenset(steps))
            return steps
    return None


def _worked(steps: Sequence[Step]) -> str:
    """Operations as text: the result of each, and what it is used for."""
    return ", then ".join(f"{_in(a)} {operator} {_in(b)} = {result}" for a, operator, b, result in steps)


def _in(value: Fraction) -> str:
    """A number inside of a larger expression."""
    return str(value) if value.denominator == 1 and value >= 0 else f"({value})"


def _verdict(value: Fraction, target: int) -> str:
    distance = abs(value - target)
    return f"That is {distance} too {'much' if value > target else 'little'}."
