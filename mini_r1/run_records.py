"""What a run leaves in its folder, read back: its curves, its evaluations and how it was run.

`trainer_state.json` holds the curves (written by transformers' Trainer), `evaluation.json` base and trained model on
the same held-out puzzles (`scripts/evaluate.py`), `run.json` how it was run (`mini_r1.training`).
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAVE_AGAIN = "let the run finish, or copy the trainer_state.json of its last checkpoint-N/ here"
HOW_TO_EVALUATE = "python scripts/evaluate.py BASE TRAINED --out {run_dir}/evaluation.json"

Record = dict[str, Any]  # a JSON object
Points = dict[int, float]  # training step -> value


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value and the ends of its 95 % interval; shares are from 0 to 1."""

    value: float
    low: float
    high: float

    def change_to(self, after: "Interval") -> int:
        """1 if `after` is higher, -1 if it is lower, 0 if the two intervals overlap.

        >>> Interval(0.1, 0.0, 0.2).change_to(Interval(0.4, 0.3, 0.5)), Interval(0, 0, 2).change_to(Interval(1, 1, 3))
        (1, 0)
        """
        return int(after.low > self.high) - int(after.high < self.low)


@dataclass(frozen=True, slots=True)
class Group:
    """A kind of puzzle: how many there are and how they were solved."""

    puzzles: int
    metrics: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of the evaluation, for a person to read."""

    nums: tuple[int, ...]
    target: int
    difficulty: str | None
    completion: str
    equation_reward: float | None
    format_reward: float | None
    reason: str | None
    attempts: int | None
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """One model's part of evaluation.json; `reasons` maps a verdict to its share of the completions."""

    model: str
    dataset: str | None
    puzzles: int
    settings: Record
    seconds: float | None
    metrics: dict[str, Interval]
    by_difficulty: dict[str, Group]
    by_numbers: dict[str, Group]
    reasons: dict[str, float]
    samples: list[Sample]
    asked: Record  # nums and target of every puzzle, in order, where they were recorded


def read_log(path: Path) -> list[Record]:
    """Return the `log_history` of a trainer_state.json, without what a resumed run did anew.

    A step lower than the one before it means that training went back to a checkpoint: the later steps logged until then
    belong to a model that no longer exists. The order within a step is kept.

    Raises:
        FileNotFoundError, ValueError: if there is none, or it is not what the Trainer writes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}. Fix: give the output folder of a run; if it is one, {SAVE_AGAIN}")
    state = _read_json(path, SAVE_AGAIN)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list) or not all(isinstance(e, dict) and _is_step(e.get("step")) for e in history):
        raise ValueError(
            f'{path}: expected {{"log_history": [{{"step": 0, …}}, …]}} as written by transformers\' Trainer. '
            f"Fix: {SAVE_AGAIN}"
        )
    kept: list[Record] = []
    for entry in history:
        while kept and kept[-1]["step"] > entry["step"]:
            kept.pop()
        kept.append(entry)
    return kept


def _is_step(step: Any) -> bool:
    return isinstance(step, int) and not isinstance(step, bool) and step >= 0


def points(log: Iterable[Record], key: str) -> Points:
    """Return the finite values of a metric by step; where a step occurs twice, the later one counts.

    >>> points([{"step": 1, "loss": 3.0}, {"step": 2, "loss": None}, {"step": 1, "loss": 2.0}], "loss")
    {1: 2.0}
    """
    return {entry["step"]: float(entry[key]) for entry in log if is_finite(entry.get(key))}


def is_finite(value: Any) -> bool:
    """Whether a value read from JSON is a number to plot or print: not None, not NaN, not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_results(path: Path) -> list[Result]:
    """Return the one or two results of an evaluation.json, the base first; none if there is no such file.

    Raises:
        ValueError: if it is not what scripts/evaluate.py writes: which result, and what is wrong.
    """
    if not path.exists():
        return []
    fix = f"make it again with `{HOW_TO_EVALUATE.format(run_dir=path.parent)}`, or remove it"
    raw = _read_json(path, fix)
    if not isinstance(raw, list) or not 1 <= len(raw) <= 2:
        raise ValueError(f"{path}: expected a list of one or two results (base, trained). Fix: {fix}")
    results = []
    for index, item in enumerate(raw):
        try:
            results.append(_parse_result(item))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path}, result {index}: {what}. Fix: {fix}") from error
    return results


def _parse_result(raw: Record) -> Result:
    return Result(
        model=str(raw["model"]),
        dataset=raw.get("dataset"),
        puzzles=int(raw["puzzles"]),
        settings=dict(raw.get("settings") or {}),
        seconds=float(raw["seconds"]) if is_finite(raw.get("seconds")) else None,
        metrics=_parse_metrics(raw["metrics"]),
        by_difficulty=_parse_groups(raw.get("by_difficulty")),
        by_numbers=_parse_groups(raw.get("by_numbers")),
        reasons={str(reason): float(share) for reason, share in (raw.get("reasons") or {}).items()},
        samples=[_parse_sample(sample) for sample in raw.get("samples") or []],
        asked={key: (raw.get("per_puzzle") or {}).get(key) for key in ("nums", "target")},
    )


def _parse_metrics(raw: Mapping[str, Record | None]) -> dict[str, Interval]:
    """Metrics that have no value (arithmetic, where nobody calculated) are left out."""
    measured = {name: metric for name, metric in raw.items() if metric and is_finite(metric["value"])}
    return {name: Interval(*(float(m[key]) for key in ("value", "low", "high"))) for name, m in measured.items()}


def _parse_groups(raw: Mapping[str, Record] | None) -> dict[str, Group]:
    return {name: Group(int(g["puzzles"]), _parse_metrics(g["metrics"])) for name, g in (raw or {}).items()}


def _parse_sample(raw: Record) -> Sample:
    return Sample(
        nums=tuple(map(int, raw["nums"])),
        target=int(raw["target"]),
        difficulty=raw.get("difficulty"),
        completion=str(raw["completion"]),
        equation_reward=raw.get("equation_reward"),
        format_reward=raw.get("format_reward"),
        reason=raw.get("reason"),
        attempts=raw.get("attempts"),
        tokens=raw.get("tokens"),
    )


def read_run(path: Path) -> Record:
    """Return a run.json; empty if there is no such file.

    Raises:
        ValueError: if it is not a JSON object.
    """
    if not path.exists():
        return {}
    run = _read_json(path, "correct or remove it")
    if not isinstance(run, dict):
        raise ValueError(f'{path}: expected an object like {{"seed": 42}}. Fix: correct or remove it')
    return run


def _read_json(path: Path, fix: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even UTF-8
        raise ValueError(f"{path} is not JSON ({error}). Fix: {fix}") from None
