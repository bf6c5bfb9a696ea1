"""Exact arithmetic for Countdown answers: `+ - * /`, parentheses, unary minus and integer literals, nothing else.

The signs may be written with the characters that people and models use in their place (`SIGN_IN_ASCII`); digits are
ASCII only.

Written instead of `eval` with a character filter, which lets `2**3`, `7//2` and the decimal splice `1.5*2` through.
Here a text is first parsed, within bounds on its size, into postfix order (Dijkstra's shunting-yard, 1961: one pass,
no recursion); only then can its value be asked for, as an exact rational.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

# Far above what a puzzle of 3 to 6 small numbers needs, and small enough that the worst text costs microseconds.
MAX_LENGTH = 1024  # characters, runs of whitespace counted as one
MAX_RAW_LENGTH = 65_536  # characters, all whitespace counted
MAX_DEPTH = 64  # open parentheses
MAX_DIGITS = 18  # per literal
MAX_NUMBERS = 32  # literals per expression

Rational = int | Fraction

_TOKEN = re.compile(r"[0-9]+|\S")  # `[0-9]`, because `\d` also matches the digits of other scripts
_LITERAL = re.compile(rf"0|-?[1-9][0-9]{{0,{MAX_DIGITS - 1}}}")
_DIGITS = frozenset("0123456789")
NEGATE = "negate"
# Look-alikes and typographic signs, for `str.translate`. Chinese input methods write the full-width ones.
SIGN_IN_ASCII = str.maketrans(
    {
        "\u00d7": "*",  # multiplication sign
        "\u00b7": "*",  # middle dot
        "\u22c5": "*",  # dot operator
        "\u2219": "*",  # bullet operator
        "\u2217": "*",  # asterisk operator
        "\u00f7": "/",  # division sign
        "\u2215": "/",  # division slash
        "\u2044": "/",  # fraction slash
        "\u2212": "-",  # minus sign
        "\u2013": "-",  # en dash
        "\u2010": "-",  # hyphen
        **dict(zip("\uff0b\uff0d\uff0a\uff0f\uff08\uff09\uff1d", "+-*/()=", strict=True)),  # full-width
    }
)
_SIGNS = frozenset("+-*/")
_PRECEDENCE = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2, NEGATE: 3}


class ExpressionError(ValueError):
    """The text has no value; `reason` says why, in the words of `mini_r1.tasks.rewards.Reason`."""

    def __init__(self, reason: Literal["not_allowed", "division_by_zero"]) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: its literals in the order written, and its postfix form (`2 * 3` is `2 3 *`)."""

    numbers: tuple[int, ...]
    postfix: tuple[int | str, ...]

    @property
    def value(self) -> Rational:
        """The exact value: an int where no division leaves a remainder on the way, else a Fraction.

        Raises ExpressionError with reason `division_by_zero`.

        >>> parse("1 / 3 * 3").value == 1
        True
        >>> parse("-5 + 10").value
        5
        """
        stack: list[Rational] = []
        for item in self.postfix:
            if isinstance(item, int):
                stack.append(item)
            elif item is NEGATE:
                stack[-1] = -stack[-1]
            else:
                right = stack.pop()
                stack[-1] = OPERATIONS[item](stack[-1], right)
        return stack[0]


def parse(text: str) -> Expression:
    """Parse `text` without computing anything; whitespace only separates tokens, `×` is `*` (see `SIGN_IN_ASCII`).

    Raises ExpressionError with reason `not_allowed` for anything outside the grammar or the bounds above: powers,
    floor division, names, decimals, leading zeros, unary plus, `5(3)`, `5 3`, `1_0`, digits of other scripts.

    >>> parse("(55 + 36) × 2").numbers
    (55, 36, 2)
    >>> parse("2 ** 3")
    Traceback (most recent call last):
    mini_r1.tasks.countdown.expression.ExpressionError: not_allowed
    """
    numbers: list[int] = []
    postfix: list[int | str] = []
    waiting: list[str] = []  # operators and open parentheses whose right side is still being read
    depth = 0
    operand_next = True
    for token in _TOKEN.findall(_within_length(text).translate(SIGN_IN_ASCII)):
        if operand_next:
            if token[0] in _DIGITS:
                numbers.append(_literal(token))
                postfix.append(numbers[-1])
                operand_next = False
            else:
                waiting.append(_prefix(token))
                depth += token == "("
                _require(depth <= MAX_DEPTH)
        elif token == ")":
            _require(depth > 0)
            depth -= 1
            while (sign := waiting.pop()) != "(":
                postfix.append(sign)
        else:
            _require(token in _SIGNS)
            while waiting and _PRECEDENCE[waiting[-1]] >= _PRECEDENCE[token]:
                postfix.append(waiting.pop())
            waiting.append(token)
            operand_next = True
    _require(not operand_next and depth == 0 and len(numbers) <= MAX_NUMBERS)
    return Expression(tuple(numbers), (*postfix, *reversed(waiting)))


def parse_literal(text: str) -> int:
    """The integer that `text` spells, in the one spelling it has: `65`, `-3`, not `065`, `+3`, `65.0` or `60 + 5`.

    The minus may be any that `parse` takes.

    Raises ExpressionError with reason `not_allowed`.

    >>> parse_literal(" 65 ")
    65
    """
    text = text.strip()
    _require(len(text) <= MAX_DIGITS + 1)
    spelled = _LITERAL.fullmatch(text.translate(SIGN_IN_ASCII))
    if spelled is None:
        raise ExpressionError("not_allowed")
    return int(spelled[0])


def _within_length(text: str) -> str:
    """`text` if it is short enough; a long one is measured again with each run of whitespace squeezed to a space."""
    if len(text) <= MAX_LENGTH:
        return text
    _require(len(text) <= MAX_RAW_LENGTH)
    squeezed = " ".join(text.split(maxsplit=MAX_LENGTH))  # maxsplit bounds the work on "1 1 1 ..."
    _require(len(squeezed) <= MAX_LENGTH)
    return squeezed


def _require(condition: bool) -> None:
    if not condition:
        raise ExpressionError("not_allowed")


def _literal(digits: str) -> int:
    if len(digits) > MAX_DIGITS or (digits[0] == "0" and digits != "0"):
        raise ExpressionError("not_allowed")
    return int(digits)


def _prefix(token: str) -> str:
    """What `token` means where an operand is due: an open parenthesis or a minus, else it is refused."""
    if token == "(":
        return token
    _require(token == "-")
    return NEGATE


def _divide(left: Rational, right: Rational) -> Rational:
    """Exact quotient, kept an int while it is one: integer arithmetic is several times faster than Fraction's."""
    if right == 0:
        raise ExpressionError("division_by_zero")
    if isinstance(left, int) and isinstance(right, int) and left % right == 0:
        return left // right
    return Fraction(left) / right


OPERATIONS: dict[str, Callable[[Rational, Rational], Rational]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
}
