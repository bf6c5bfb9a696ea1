"""A complete Countdown solver: says whether a puzzle of up to six numbers has a solution, and shows one.

The value tables of sub-multisets of up to four numbers are built once and kept (about 1,200 values for four numbers).
A table of five or six numbers (about 27,000 and 790,000 values) is never built: the last operation of a solution
splits the numbers in two sides, so it is enough to walk through the values of the smaller side, invert the operation,
and look up what the larger side would have to be. Six numbers take some hundredths of a second.

Values are exact rationals, held as `(numerator, denominator)` in lowest terms with a positive denominator: several
times faster than `fractions.Fraction`.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import gcd
from typing import Literal, TypeAlias

Value: TypeAlias = tuple[int, int]
Node: TypeAlias = int | tuple["Node", str, "Node"]
Table: TypeAlias = dict[Value, Node]
Difficulty: TypeAlias = Literal["easy", "medium", "hard"]

OPERATORS = "+-*/"
MAX_NUMBERS = 6
_MAX_TABLE = 4  # numbers in the largest sub-multiset whose values are all enumerated
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


def solve(nums: Sequence[int], target: int, operators: str = OPERATORS) -> str | None:
    """Return an expression that uses every number exactly once and equals `target`, or None if there is none.

    Fractions and negative numbers are allowed on the way, as the verifier allows them.

    >>> solve([3, 3, 8, 8], 24)
    '8 / (3 - 8 / 3)'
    >>> solve([1, 1], 5) is None
    True

    Args:
        nums: 1 to 6 positive integers, in any order.
        target: any integer.
        operators: the operators that may be used, a selection of "+-*/".

    Raises:
        ValueError: if there are no numbers or more than 6, one is not positive, or an operator is unknown.
    """
    _check(nums, operators)
    key = tuple(sorted(nums))
    node = _find(key, (target, 1), operators)
    if node is not None:
        return _render(node)
    # Whoever can write -(1 + 2) reaches a little further: only here does the unary minus add anything, because an
    # expression with a subtraction in it can be turned into its negative by swapping the sides of the subtraction.
    if target < 0 and "-" in operators and (node := _find(key, (-target, 1), operators)) is not None:
        return f"-({_render(node)})"
    return None


def difficulty(nums: Sequence[int], target: int) -> Difficulty | None:
    """Say which operators a puzzle needs: "easy" + and - only, "medium" also *, "hard" also /; None if unsolvable.

    >>> difficulty([1, 2, 3], 6), difficulty([2, 3, 4], 24), difficulty([1, 5, 5, 5], 24), difficulty([1, 1], 5)
    ('easy', 'medium', 'hard', None)

    Raises:
        ValueError: as `solve`.
    """
    labels: tuple[tuple[Difficulty, str], ...] = (("easy", "+-"), ("medium", "+-*"), ("hard", "+-*/"))
    return next((label for label, operators in labels if solve(nums, target, operators) is not None), None)


def _check(nums: Sequence[int], operators: str) -> None:
    if not 1 <= len(nums) <= MAX_NUMBERS:
        raise ValueError(f"the solver takes 1 to {MAX_NUMBERS} numbers, not {len(nums)}: {list(nums)}")
    if any(number <= 0 for number in nums):
        raise ValueError(f"the solver takes positive numbers only, not {list(nums)}")
    if unknown := set(operators) - set(OPERATORS):
        raise ValueError(f"unknown operators {sorted(unknown)}: choose from {OPERATORS}")


def _find(nums: tuple[int, ...], target: Value, operators: str) -> Node | None:
    """Search the last operation of a solution. `nums` is sorted."""
    if len(nums) == 1:
        return nums[0] if target == (nums[0], 1) else None
    for small, large in _splits(nums):
        if len(large) <= _MAX_TABLE:
            node = _join(_table(small, operators), _table(large, operators), target, operators)
        else:  # five numbers on the large side, so one on the small side: there are six at most
            node = _recurse(small[0], large, target, operators)
        if node is not None:
            return node
    return None


def _recurse(number: int, rest: tuple[int, ...], target: Value, operators: str) -> Node | None:
    """Solve `number op rest = target` where the values of `rest` are too many for a table."""
    for op, number_first, partner in _invert((number, 1), target, operators):
        if (node := _find(rest, partner, operators)) is not None:
            return (number, op, node) if number_first else (node, op, number)
    return None


def _join(small: Table, large: Table, target: Value, operators: str) -> Node | None:
    """Find a value of `small` and one of `large` that one operation joins to the target."""
    for value, node in small.items():
        for op, small_first, partner in _invert(value, target, operators):
            if (other := large.get(partner)) is not None:
                return (node, op, other) if small_first else (other, op, node)
    return None


def _invert(a: Value, target: Value, operators: str) -> Iterator[tuple[str, bool, Value]]:
    """Yield `(op, a_first, x)` for each x with `a op x = target` (a first) or `x op a = target`.

    0 * x = 0 and 0 / x = 0 hold for any x and are left out. Nothing is lost by it: the numbers of x, being positive,
    can be put to the 0 one at a time, so another split finds a solution.
    """
    (an, ad), (tn, td) = a, target
    if "+" in operators:
        yield "+", True, _reduce(tn * ad - an * td, td * ad)
    if "-" in operators:
        yield "-", True, _reduce(an * td - tn * ad, td * ad)
        yield "-", False, _reduce(tn * ad + an * td, td * ad)
    if an == 0:
        return
    if "*" in operators:
        yield "*", True, _reduce(tn * ad, td * an)
    if "/" in operators:
        yield "/", False, _reduce(tn * an, td * ad)
        if tn != 0:
            yield "/", True, _reduce(an * td, ad * tn)


@lru_cache(maxsize=1024)
def _table(nums: tuple[int, ...], operators: str) -> Table:
    """Return every value that the sorted `nums` can make, each with the first way found to make it."""
    if len(nums) == 1:
        return {(nums[0], 1): nums[0]}
    table: Table = {}
    for left, right in _splits(nums):
        right_table = _table(right, operators)
        for a, a_node in _table(left, operators).items():
            for b, b_node in right_table.items():
                for op, a_first, value in _combine(a, b, operators):
                    if value not in table:
                        table[value] = (a_node, op, b_node) if a_first else (b_node, op, a_node)
    return table


def _combine(a: Value, b: Value, operators: str) -> Iterator[tuple[str, bool, Value]]:
    """Yield `(op, a_first, value)` for each of a + b, a - b, b - a, a * b, a / b and b / a that is allowed."""
    (an, ad), (bn, bd) = a, b
    if "+" in operators:
        yield "+", True, _reduce(an * bd + bn * ad, ad * bd)
    if "-" in operators:
        yield "-", True, _reduce(an * bd - bn * ad, ad * bd)
        yield "-", False, _reduce(bn * ad - an * bd, ad * bd)
    if "*" in operators:
        yield "*", True, _reduce(an * bn, ad * bd)
    if "/" in operators:
        if bn != 0:
            yield "/", True, _reduce(an * bd, ad * bn)
        if an != 0:
            yield "/", False, _reduce(bn * ad, bd * an)


def _reduce(numerator: int, denominator: int) -> Value:
    """Bring a fraction to lowest terms with a positive denominator."""
    if denominator == 1:
        return numerator, 1
    divisor = gcd(numerator, denominator)
    if denominator < 0:
        divisor = -divisor
    return numerator // divisor, denominator // divisor


@lru_cache(maxsize=1024)
def _splits(nums: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Return the different ways to deal sorted `nums` into a smaller and a larger side, both sorted."""
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], None] = {}  # a set that keeps its order
    for size in range(1, len(nums) // 2 + 1):
        for chosen in combinations(range(len(nums)), size):
            small = tuple(nums[i] for i in chosen)
            large = tuple(nums[i] for i in range(len(nums)) if i not in chosen)
            if len(small) < len(large) or (large, small) not in found:
                found[small, large] = None
    return tuple(found)


def _render(node: Node) -> str:
    """Write an expression tree with the fewest parentheses."""
    if isinstance(node, int):
        return str(node)
    left, op, right = node
    left_text, right_text = _render(left), _render(right)
    if isinstance(left, tuple) and _PRECEDENCE[left[1]] < _PRECEDENCE[op]:
        left_text = f"({left_text})"
    if isinstance(right, tuple) and _PRECEDENCE[right[1]] < _PRECEDENCE[op] + (op in "-/"):
        right_text = f"({right_text})"
    return f"{left_text} {op} {right_text}"
