"""The solver against brute force, an evaluator of its own, and the verifier."""

import ast
import random
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations

import pytest

from mini_r1.tasks.countdown.solver import difficulty, solve
from mini_r1.tasks.rewards import equation_reward_func

Numbers = tuple[Fraction, ...]


def results(a: Fraction, b: Fraction, operators: str) -> set[Fraction]:
    """What one operation makes of two values, either way round."""
    found = set()
    for left, right in ((a, b), (b, a)):
        found |= {left + right} if "+" in operators else set()
        found |= {left - right} if "-" in operators else set()
        found |= {left * right} if "*" in operators else set()
        found |= {left / right} if "/" in operators and right != 0 else set()
    return found


@cache
def reachable(values: Numbers, operators: str) -> frozenset[Fraction]:
    """Brute force: combine any two of the values, and go on with what is left."""
    if len(values) == 1:
        return frozenset(values)
    found: set[Fraction] = set()
    for i, j in combinations(range(len(values)), 2):
        rest = [values[k] for k in range(len(values)) if k not in (i, j)]
        for value in results(values[i], values[j], operators):
            found |= reachable(tuple(sorted([*rest, value])), operators)
    return frozenset(found)


def brute_force(nums: Sequence[int], operators: str = "+-*/") -> frozenset[Fraction]:
    return reachable(tuple(sorted(map(Fraction, nums))), operators)


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """Value and literals of an expression, by Python's parser and exact fractions; anything unusual raises."""
    literals: list[int] = []

    def walk(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(value)):
                literals.append(value)
                return Fraction(value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -walk(operand)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return walk(left) + walk(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return walk(left) - walk(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return walk(left) * walk(right)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return walk(left) / walk(right)
        raise AssertionError(ast.dump(node))

    return walk(ast.parse(text, mode="eval").body), literals


def assert_solution(text: str | None, nums: Sequence[int], target: int, operators: str = "+-*/") -> None:
    assert text is not None, f"no solution for {nums} -> {target}"
    value, literals = evaluate(text)
    assert value == target and sorted(literals) == sorted(nums), f"{text} for {nums} -> {target}"
    assert not set("+-*/") & set(text) - set(operators), f"{text} with {operators}"
    completion = f"so</think>\n<answer>{text}</answer>"
    assert equation_reward_func([completion], [target], [list(nums)]) == [1.0], text


@pytest.mark.parametrize("operators", ["+-*/", "+-*", "+-", "+", "*/"])
@pytest.mark.parametrize("how_many, largest, puzzles", [(1, 9, 3), (2, 9, 6), (3, 20, 12), (4, 9, 2)])
def test_agrees_with_brute_force_on_every_target(operators: str, how_many: int, largest: int, puzzles: int) -> None:
    rng = random.Random(how_many)
    for _ in range(puzzles):
        nums = [rng.randint(1, largest) for _ in range(how_many)]
        values = brute_force(nums, operators)
        for target in range(101):
            solution = solve(nums, target, operators)
            if target in values:
                assert_solution(solution, nums, target, operators)
            else:
                assert solution is None, f"{solution} for {nums} -> {target}, which brute force can't reach"


@pytest.mark.parametrize("nums", [(1, 1, 1, 1), (1, 2, 3, 4), (3, 3, 8, 8), (2, 5, 5, 10), (1, 5, 5, 5), (7, 7, 9, 97)])
def test_agrees_with_brute_force_on_four_numbers_with_repeats(nums: tuple[int, ...]) -> None:
    values = brute_force(nums)
    by_brute_force = {t for t in range(-200, 201) if t in values or -t in values}  # a unary minus turns t into -t
    assert {t for t in range(-200, 201) if solve(nums, t) is not None} == by_brute_force


@cache
def all_values(nums: tuple[int, ...]) -> frozenset[Fraction]:
    """Every value of a sub-multiset; the plain dynamic programme that the solver avoids, fit for five numbers."""
    if len(nums) == 1:
        return frozenset({Fraction(nums[0])})
    found: set[Fraction] = set()
    for mask in range(1, 2 ** len(nums) - 1):
        left = tuple(n for i, n in enumerate(nums) if mask >> i & 1)
        right = tuple(n for i, n in enumerate(nums) if not mask >> i & 1)
        if len(left) <= len(right):
            found |= {v for a in all_values(left) for b in all_values(right) for v in results(a, b, "+-*/")}
    return frozenset(found)


@pytest.mark.parametrize("nums", [(1, 2, 5, 7, 9), (1, 1, 1, 4, 6), (1, 1, 2, 2, 2, 3)])
def test_complete_for_five_and_six_numbers(nums: tuple[int, ...]) -> None:
    values = all_values(nums)
    targets = [*range(0, 60), *range(60, 2000, 37)]
    for target in targets:
        solution = solve(nums, target)
        assert (solution is not None) == (target in values), f"{nums} -> {target}: {solution}"
        if solution is not None:
            assert_solution(solution, nums, target)
    assert any(t not in values for t in targets) and any(t in values for t in targets)


@pytest.mark.parametrize(
    "nums, target",
    [
        ([1, 5, 5, 5], 24),  # 5 * (5 - 1 / 5)
        ([3, 3, 8, 8], 24),  # 8 / (3 - 8 / 3)
        ([1, 3, 4, 6], 24),  # 6 / (1 - 3 / 4)
        ([5, 5, 8, 8, 1, 1], 24),
        ([1, 5, 5, 5, 7, 7], 168),
        ([25, 50, 75, 100, 3, 6], 952),  # the television show's famous one
        ([100, 75, 50, 25, 1, 1], 999),
        ([6, 6, 2, 2], 0),
        ([7], 7),
    ],
)
def test_solves_known_puzzles(nums: list[int], target: int) -> None:
    assert_solution(solve(nums, target), nums, target)


@pytest.mark.parametrize(
    "nums, target",
    [([1], 2), ([1, 1], 5), ([1, 1, 1, 1], 24), ([1, 1, 1], 7), ([1, 1, 1, 1, 1, 1], 100), ([1, 2, 3], 10**12)],
)
def test_unsolvable(nums: list[int], target: int) -> None:
    assert solve(nums, target) is None
    assert difficulty(nums, target) is None


def test_negative_targets_may_need_a_unary_minus() -> None:
    assert_solution(solve([1, 2], -1), [1, 2], -1)
    assert_solution(solve([1, 2], -3), [1, 2], -3)
    assert solve([1, 2], -3, "+*/") is None


@pytest.mark.parametrize("operators", ["-*", "-/"])
@pytest.mark.parametrize("nums", [[5, 5, 7], [5, 5, 7, 11], [5, 5, 7, 11, 29], [5, 5, 7, 11, 29, 61]])
def test_zero_times_anything(nums: list[int], operators: str) -> None:
    """0 * x = 0 is the one equation that can't be solved for x."""
    assert_solution(solve(nums, 0, operators), nums, 0, operators)


def test_order_of_the_numbers_does_not_matter() -> None:
    assert solve([8, 3, 8, 3], 24) == solve([3, 3, 8, 8], 24)


@pytest.mark.parametrize(
    "nums, target, label",
    [([1, 2, 3], 6, "easy"), ([2, 3, 4], 24, "medium"), ([1, 5, 5, 5], 24, "hard"), ([4, 8], 2, "hard")],
)
def test_difficulty(nums: list[int], target: int, label: str) -> None:
    assert difficulty(nums, target) == label


def test_difficulty_is_the_smallest_set_of_operators() -> None:
    rng = random.Random(0)
    for _ in range(100):
        nums, target = [rng.randint(1, 20) for _ in range(3)], rng.randint(1, 40)
        enough = [operators for operators in ("+-", "+-*", "+-*/") if target in brute_force(nums, operators)]
        expected = {"+-": "easy", "+-*": "medium", "+-*/": "hard"}[enough[0]] if enough else None
        assert difficulty(nums, target) == expected


@pytest.mark.parametrize("nums, operators", [([], "+"), ([1] * 7, "+"), ([1, 0], "+"), ([1, -2], "+"), ([1, 2], "+^")])
def test_refuses_what_it_cannot_solve(nums: list[int], operators: str) -> None:
    with pytest.raises(ValueError, match=r"number|operator"):
        solve(nums, 1, operators)
