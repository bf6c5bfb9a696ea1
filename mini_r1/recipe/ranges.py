"""What a value may be, in words and as a test: the ranges that the tables of keys are written with."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Range:
    """What a key allows, in words and as a test; `names` are the allowed ones, if there are only some."""

    allowed: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def at_least(low: float, high: float = math.inf) -> Range:
    """A finite number of `low` to `high`, both included."""
    words = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
    return Range(f"a number {words}", lambda value: is_number(value) and low <= value <= high)


def above(low: float, high: float = math.inf) -> Range:
    """A finite number greater than `low`, up to `high`."""
    words = "" if high == math.inf else f" and at most {high}"
    return Range(f"a number greater than {low}{words}", lambda value: is_number(value) and low < value <= high)


def below(high: float) -> Range:
    """A number from 0 up to, but not including, `high`."""
    return Range(f"a number of at least 0 and below {high}", lambda value: is_number(value) and 0 <= value < high)


def one_of(*names: str) -> Range:
    """One of some names."""
    return Range(f"one of {', '.join(names)}", lambda value: value in names, names)


def each_of(*names: str) -> Range:
    """One or several of some names."""

    def holds(value: Any) -> bool:
        parts = as_list(value)
        return all(part in names for part in parts) and (len(parts) == 1 or not {"none", "all"} & set(parts))

    return Range(f"one or more of {', '.join(names)}", holds, names)


def as_list(value: Any) -> list[Any]:
    """A list as it is, anything else as the only member of one."""
    return value if isinstance(value, list) else [value]
