"""What stands in the way of a run, worded so that a person can act on it."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class UserError(Exception):
    """Something that the user can mend; the message is one sentence or more, with the value, the cause and the fix.

    Every program of this project ends on one of these with the single line `error: MESSAGE`, never with a traceback.
    """


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason not to start: the setting, its value, what is allowed, what to do and, where known, the cause.

    >>> print(Problem("num_generations", 7, "a divisor of 192", "use 6 or 8"))
    num_generations is 7; needed: a divisor of 192. Fix: use 6 or 8
    >>> print(Problem("model_name_or_path", "./x", "a folder with a model", "check the path", "there is no folder ./x"))
    model_name_or_path is ./x: there is no folder ./x; needed: a folder with a model. Fix: check the path
    """

    name: str
    value: object
    allowed: str
    fix: str
    cause: str = ""

    def __str__(self) -> str:
        cause = f": {self.cause}" if self.cause else ""
        return f"{self.name} is {self.value}{cause}; needed: {self.allowed}. Fix: {self.fix}"


class ProblemError(UserError):
    """A problem that ends a program at once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def first_line(error: BaseException) -> str:
    """The first line of a library's message, which the others explain to its own users."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0][:300] if lines else type(error).__name__).rstrip(".:")


def shown(value: Any) -> str:
    """A value as a recipe would write it.

    >>> shown(None), shown(True), shown(["a", "b"])
    ('null', 'true', 'a, b')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return str(value.value if isinstance(value, Enum) else value)


def nearest(word: str, names: Iterable[str]) -> str:
    """The name that was most likely meant; several where the word is the beginning of several; "" if none is near.

    >>> nearest("learning_rat", ["learning_rate", "seed"]), nearest("vllm_g", ["vllm_gpus", "vllm_group_port"])
    ('learning_rate', 'vllm_gpus or vllm_group_port')
    """
    names = list(names)
    begins = [name for name in names if word and name.startswith(word)]
    near = begins[:3] or difflib.get_close_matches(word, names, n=1)
    return " or ".join(near)
