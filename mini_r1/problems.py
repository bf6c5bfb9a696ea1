"""What stands in the way of a run, said so that a person can act on it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason not to start: the setting, its value, what is allowed and what to do.

    >>> print(Problem("num_generations", 7, "a divisor of 192", "use 6 or 8"))
    num_generations=7: allowed is a divisor of 192. Fix: use 6 or 8
    """

    name: str
    value: object
    allowed: str
    fix: str

    def __str__(self) -> str:
        return f"{self.name}={self.value}: allowed is {self.allowed}. Fix: {self.fix}"
