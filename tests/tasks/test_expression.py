"""The grammar, the bounds and the arithmetic of expressions, against oracles that share no code with them."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_r1.tasks.countdown import expression
from mini_r1.tasks.countdown.expression import ExpressionError, parse, parse_literal


def refusal(text: str) -> str:
    """The reason for which `text` has no value."""
    with pytest.raises(ExpressionError) as error:
        _ = parse(text).value
    return error.value.reason


# --- what is allowed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("65", 65),
        ("0", 0),
        ("2 + 3 * 4", 14),
        ("2 * 3 + 4", 10),
        ("(2 + 3) * 4", 20),
        ("10 - 4 - 3", 3),
        ("10 - (4 - 3)", 9),
        ("100 / 10 / 5", 2),
        ("100 / (10 / 5)", 50),
        ("8 / 4 * 2", 4),
        ("-5 + 10", 5),
        ("10 + -5", 5),
        ("2 * -3", -6),
        ("-(2 + 3)", -5),
        ("--5", 5),
        ("5 - -3", 8),
        ("-2 * -3 - 4", 2),
        ("2 × 3 ÷ 6", 1),
        ("7 − 2 · 3", 1),
        ("((((7))))", 7),
        (" 1\n+\t2\r\n", 3),
        ("1+2", 3),
        ("1\u00a0+\u202f2", 3),
        ("1 / 3 * 3", 1),
        ("1 / 3 + 1 / 6", Fraction(1, 2)),
        ("8 / (3 - 8 / 3)", 24),
        ("0 / 5", 0),
        ("-7 / 2", Fraction(-7, 2)),
    ],
)
def test_value(text: str, value: int | Fraction) -> None:
    assert parse(text).value == value


def test_numbers_come_in_the_order_written() -> None:
    assert parse("(19 - 7) * -3 + 19 / 0").numbers == (19, 7, 3, 19, 0)


def test_parsing_computes_nothing() -> None:
    assert parse("1 / (2 - 2)").numbers == (1, 2, 2)


@pytest.mark.parametrize("text", ["1 / 0", "1 / (2 - 2)", "0 / 0", "1 / (1 / 3 - 2 / 6)", "5 * (3 / 0)", "1 / -0"])
def test_division_by_zero(text: str) -> None:
    assert refusal(text) == "division_by_zero"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *(
            "2**3",
            "2 * * 3",
            "2×*3",
            "××",
            "7 // 2",
            "7 / / 2",
            "7÷÷2",
            "7 % 2",
            "3!",
            "2 ^ 3",
            "5 & 3",
            "1 << 3",
            "~5",
        ),
        *("sqrt(4)", "abs", "x", "2 x 3", "1e3", "0x10", "1j", "True", "__import__('os')", "[1]", "{1}", "1, 2", "'5'"),
        *("1.5", "1.5*2", ".5", "5.", "1,000", "1_0", "05", "00", "007 + 1", "5 3", "5(3)", "(5)(3)", "(5)3", "5 -3 2"),
        *("1٣ + 2", "٣ + ٤", "５", "1² + 1", "½", "Ⅷ", "1 ＋ ２", "1\u200b+ 2", "1\0+ 2", "\ud800", "1 + \udfff"),
        *(
            "",
            " ",
            "()",
            "(",
            ")",
            ")(",
            "(1",
            "1)",
            "((1)",
            "1 +",
            "* 1",
            "+ 1",
            "1 + + 2",
            "-",
            "1 - ",
            "(1 +) 2",
            "1 = 1",
        ),
        *("$1 + 2$", "1 + 2.", r"\frac{1}{2}", "1 # 2", "1; 2", "1 == 1", "1 if 1 else 2", "1 +\\\n2"),
    ],
)
def test_not_allowed(text: str) -> None:
    assert refusal(text) == "not_allowed"


def test_the_grammar_is_judged_before_any_division() -> None:
    assert refusal("1 / 0 + 2 ** 3") == "not_allowed"


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("9" * expression.MAX_DIGITS, "9" * (expression.MAX_DIGITS + 1)),
        ("(" * expression.MAX_DEPTH + "1" + ")" * expression.MAX_DEPTH, "(" * 65 + "1" + ")" * 65),
        ("+".join("1" * expression.MAX_NUMBERS), "+".join("1" * (expression.MAX_NUMBERS + 1))),
        ("-" * (expression.MAX_LENGTH - 1) + "1", "-" * expression.MAX_LENGTH + "1"),
        ("1 +" + " " * 60_000 + "2", "1 +" + " " * expression.MAX_RAW_LENGTH + "2"),
    ],
    ids=["digits", "depth", "numbers", "length", "whitespace"],
)
def test_bounds_are_where_they_say(inside: str, outside: str) -> None:
    _ = parse(inside).value
    assert refusal(outside) == "not_allowed"


def test_squeezing_whitespace_joins_no_literals() -> None:
    assert refusal("5" + " " * 5_000 + "3") == "not_allowed"


@pytest.mark.parametrize("text", ["(" * 10_000 + "1" + ")" * 10_000, "-" * 10_000 + "1", "9" * 2**20, "9**9**9"])
def test_no_text_exhausts_the_stack_or_the_clock(text: str) -> None:
    assert refusal(text) == "not_allowed"


# --- parse_literal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("65", 65), (" 65\n", 65), ("-3", -3), ("−3", -3), ("–3", -3), ("‐3", -3), ("－3", -3), ("0", 0)],
)
def test_parse_literal(text: str, value: int) -> None:
    assert parse_literal(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "065", "+65", "65.0", "(65)", "60 + 5", "6 5", "-0", "٦٥", "65 = 65", "６５", "＋65", "（65）", "9" * 2**20],
)
def test_parse_literal_accepts_one_spelling_only(text: str) -> None:
    with pytest.raises(ExpressionError, match="not_allowed"):
        parse_literal(text)


# --- oracle 1: a random tree that knows its own value ----------------------------------------------------------------

Tree = Any  # int, ("negate", tree) or (sign, tree, tree); recursive, so mypy is spared
ARITHMETIC: dict[str, Callable[[Any, Any], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
SPELLINGS = {
    "+": "+\uff0b",
    "-": "-\u2212\u2013\u2010\uff0d",
    "*": "*\u00d7\u00b7\u22c5\u2219\u2217\uff0a",
    "/": "/\u00f7\u2215\u2044\uff0f",
}
BINDING = {"+": 1, "-": 1, "*": 2, "/": 2}


def grow(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.tuples(st.just("negate"), children) | st.tuples(st.sampled_from("+-*/"), children, children)


trees = st.recursive(st.integers(0, 999), grow, max_leaves=10)


def value_of(tree: Tree) -> Fraction:
    if isinstance(tree, int):
        return Fraction(tree)
    operands = [value_of(child) for child in tree[1:]]
    return -operands[0] if tree[0] == "negate" else ARITHMETIC[tree[0]](*operands)


def leaves_of(tree: Tree) -> list[int]:
    return [tree] if isinstance(tree, int) else [leaf for child in tree[1:] for leaf in leaves_of(child)]


def render(tree: Tree, draw: Callable[[st.SearchStrategy[Any]], Any], binding: int = 0) -> str:
    """`tree` as text: parentheses where precedence needs them and, at random, where it does not; random whitespace."""
    gap = draw(st.sampled_from(["", " ", "\n", "  "]))
    if isinstance(tree, int):
        own, text = 9, str(tree)
    elif tree[0] == "negate":
        own, text = 3, draw(st.sampled_from(SPELLINGS["-"])) + gap + render(tree[1], draw, 3)
    else:
        own = BINDING[tree[0]]
        left, right = render(tree[1], draw, own), render(tree[2], draw, own + 1)  # all four associate to the left
        text = left + gap + draw(st.sampled_from(SPELLINGS[tree[0]])) + gap + right
    if own >= binding and draw(st.integers(0, 4)):
        return text
    return draw(st.sampled_from("(\uff08")) + gap + text + gap + draw(st.sampled_from(")\uff09"))


@settings(deadline=None, max_examples=300)
@given(trees, st.data())
def test_agrees_with_a_tree_that_knows_its_value(tree: Tree, data: st.DataObject) -> None:
    text = render(tree, data.draw)
    assert list(parse(text).numbers) == leaves_of(tree)
    try:
        value = value_of(tree)
    except ZeroDivisionError:
        assert refusal(text) == "division_by_zero"
    else:
        assert parse(text).value == value


# --- oracle 2: Python's own parser, cut down to the same grammar ------------------------------------------------------

PYTHON_SIGNS: dict[type[ast.AST], Callable[[Any, Any], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
SHARED_GRAMMAR = (ast.BinOp, ast.UnaryOp, ast.USub, ast.Constant, *PYTHON_SIGNS)


def python_value(node: ast.AST) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(operand=operand):
            return -python_value(operand)
        case ast.BinOp(left=left, op=sign, right=right):
            return PYTHON_SIGNS[type(sign)](python_value(left), python_value(right))
    raise AssertionError(f"not in the shared grammar: {node}")


def python_verdict(text: str) -> Fraction | str:
    """What Python makes of `text`: a value, or the reason for which there is none."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return "not_allowed"
    nodes = list(ast.walk(tree))
    if not all(isinstance(node, SHARED_GRAMMAR) for node in nodes) or re.search(r"[._]|\b0[0-9]", text):
        return "not_allowed"  # powers, calls, tuples, ...; and 1.5, 1_0 and 00, which are constants to Python
    try:
        return python_value(tree)
    except ZeroDivisionError:
        return "division_by_zero"


any_text = st.text("0123456789+-*/() ._", max_size=14)
near_misses = st.lists(st.sampled_from(["1", "2", "30", "0", "+", "-", "*", "/", "(", ")"]), max_size=9).map("".join)


@settings(deadline=None, max_examples=1_000)
@given(any_text | near_misses)
def test_agrees_with_pythons_parser_on_any_text(text: str) -> None:
    try:
        verdict: Fraction | int | str = parse(text).value
    except ExpressionError as error:
        verdict = error.reason
    assert verdict == python_verdict(text)
