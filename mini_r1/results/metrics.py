"""The one vocabulary of what an evaluation measures: each metric's name, unit, decimals and which way is better.

Table, card and report all print metrics through here, so that they show a loss as plainly as a gain.
"""

from dataclasses import dataclass

from mini_r1.runs.records import Interval

HIGHER_IS_BETTER, LOWER_IS_BETTER, NEITHER = 1, -1, 0
# What a run logs of every batch beside what the task does; of an evaluation with `eval_` in front.
LENGTH, ATTEMPTS, ENUMERATING = "completions/mean_length", "thinking/attempts", "thinking/enumerating"


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric of evaluation.json is called, and how to read it.

    Attributes:
        label: its name on a page.
        better: 1 where higher is better, -1 where lower is better, 0 where neither is (thinking may be long or short).
        unit: "%" for a share from 0 to 1, which is shown from 0 to 100.
        decimals: of its value on a page.
    """

    label: str
    better: int
    unit: str = "%"
    decimals: int = 1

    def number(self, value: float) -> str:
        """The value without its unit.

        >>> metric_of("format").number(0.964), metric_of("attempts").number(6.2)
        ('96.4', '6.20')
        """
        return f"{100 * value if self.unit == '%' else value:.{self.decimals}f}"

    def text(self, value: float) -> str:
        """The value with its unit.

        >>> metric_of("length").text(88.96)
        '89.0 tokens'
        """
        return f"{self.number(value)} {self.unit}".rstrip()


_METRICS = {  # in the order of a page
    "greedy": Metric("solved by the greedy completion", HIGHER_IS_BETTER),
    "mixed": Metric("problems that some samples solve and some don't", NEITHER),
    "format": Metric("completions in the format", HIGHER_IS_BETTER),
    "length": Metric("completion length", NEITHER, "tokens"),
    "truncated": Metric("completions cut off at the token limit", LOWER_IS_BETTER),
    "attempts": Metric("attempts per completion", NEITHER, "", decimals=2),
    "enumerating": Metric("completions that enumerate", NEITHER),
    "arithmetic": Metric("equations in the thinking that are right", HIGHER_IS_BETTER),
    "repeats": Metric("attempts that repeat an earlier one", LOWER_IS_BETTER),
    "foreign": Metric("attempts with numbers that aren't there", LOWER_IS_BETTER),
    "false_yes": Metric('lines that say "yes" and are wrong', LOWER_IS_BETTER),
    "false_no": Metric('solutions in the thinking followed by "no"', LOWER_IS_BETTER),
}


def metric_of(name: str) -> Metric:
    """The metric of a name in evaluation.json: pass@k for any k; one that nobody knows is a share under its name."""
    if name == "pass@1":
        return Metric("solved by a sampled completion (pass@1)", HIGHER_IS_BETTER)
    if name.startswith("pass@"):
        return Metric(f"solved by one of {name.removeprefix('pass@')} samples ({name})", HIGHER_IS_BETTER)
    return _METRICS.get(name, Metric(name, NEITHER))


def as_fraction(name: str, measured: Interval | None) -> str:
    """A measured value with its interval, shares from 0 to 1; as many digits as a page shows.

    >>> as_fraction("pass@1", Interval(0.74, 0.711, 0.767)), as_fraction("attempts", None)
    ('0.740 [0.711, 0.767]', 'n/a')
    """
    if measured is None:
        return "n/a"
    metric = metric_of(name)
    decimals = metric.decimals + 2 * (metric.unit == "%")
    value, low, high = (f"{part:.{decimals}f}" for part in (measured.value, measured.low, measured.high))
    return f"{value} [{low}, {high}]"


def in_order(names: set[str]) -> list[str]:
    """Names of metrics as a page lists them: pass@k by k, the others, and last what nobody knows.

    >>> in_order({"format", "pass@16", "pass@2", "new"})
    ['pass@2', 'pass@16', 'format', 'new']
    """
    passes = sorted((n for n in names if n.startswith("pass@")), key=lambda n: (len(n), n))
    return [*passes, *(n for n in _METRICS if n in names), *sorted(names - set(passes) - set(_METRICS))]
