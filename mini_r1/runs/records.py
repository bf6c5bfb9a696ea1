"""What a run leaves in its folder, read back: its curves, its evaluations and how it was run.

`trainer_state.json` holds the curves (written by transformers' Trainer, in each checkpoint and at the end),
`evaluation.json` base and trained model on the same held-out puzzles (`scripts/evaluate.py`), `run.json` how it was run
(`mini_r1.train.run`).
"""

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mini_r1.policy.weights import is_outdated
from mini_r1.program.problems import UserError

STATE, EVALUATION, RUN = "trainer_state.json", "evaluation.json", "run.json"
SAVE_AGAIN = f"let the run finish, or copy the {STATE} of its last checkpoint-N/ here"

Record = dict[str, Any]  # a JSON object
Points = dict[int, float]  # training step -> value


class RecordError(UserError, ValueError):
    """A file of a run is missing or is not what its writer writes; the message names it, the fault and the fix."""


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
    """A kind of problem: how many there are and how they were solved."""

    puzzles: int
    metrics: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of the evaluation, for a person to read.

    Attributes:
        key, shown, row, groups: the problem, as its task tells, shows and groups it.
    """

    key: str
    shown: str
    row: Record
    groups: list[str]
    completion: str
    reason: str | None = None
    solved: bool | None = None
    in_format: bool | None = None
    attempts: int | None = None
    tokens: int | None = None


SAMPLE_NUMBERS, SAMPLE_FLAGS = ("attempts", "tokens"), ("solved", "in_format")


@dataclass(frozen=True, slots=True)
class Result:
    """One model's part of evaluation.json.

    Attributes:
        held_out: whether no recorded training of the model used any of the problems; None where nobody can say.
        state: step and weights of the model that was measured (`mini_r1.policy.weights`), where they were recorded.
        reasons: verdict -> its share of the completions.
        groups: kind of group -> group -> how its problems were solved.
        asked: the key of every problem, in order, where they were recorded.
        data: where the problems come from, and the task that they are of.
    """

    model: str
    dataset: str | None
    puzzles: int
    held_out: bool | None
    state: Record | None
    settings: Record
    seconds: float | None
    metrics: dict[str, Interval]
    groups: dict[str, dict[str, Group]]
    reasons: dict[str, float]
    samples: list[Sample]
    asked: list[str] | None
    data: Record


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: its curves, steps done and, where the Trainer recorded it, steps to do."""

    log: list[Record]
    step: int
    steps: int | None

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, as far as is known."""
        return self.steps is None or self.step >= self.steps


def read_progress(run_dir: Path) -> Progress:
    """Read the newest state of a run: that of its end, or of a checkpoint while it is under way.

    Raises:
        RecordError: if there is none yet, or it is not what the Trainer writes.
    """
    states = _states(run_dir)
    if not states:
        raise RecordError(_no_state(run_dir))
    path = max(states, key=_step_of)  # of equals the first, which is that of the end
    log, state = read_log(path), _read_json(path, SAVE_AGAIN)
    last = max((entry["step"] for entry in log), default=0)
    step, steps = state.get("global_step"), state.get("max_steps")
    return Progress(log, step if _is_step(step) else last, steps if _is_step(steps) and steps else None)


def _states(run_dir: Path) -> list[Path]:
    """The state files of a run: that of its end first."""
    return [path for path in (run_dir / STATE, *run_dir.glob(f"checkpoint-*/{STATE}")) if path.is_file()]


def _step_of(path: Path) -> int:
    """The step of a state file; -1 if it can't be read, as when it is being written."""
    step = read_object(path).get("global_step")
    return step if _is_step(step) else -1


def _no_state(run_dir: Path) -> str:
    if run_dir.is_dir() and any((run_dir / name).exists() for name in (RUN, "runs", "completion_samples")):
        return (
            f"no {run_dir / STATE} and no checkpoint-N in {run_dir}: this run has not saved anything yet. "
            "Fix: wait for its first checkpoint (save_steps in the recipe), or give another folder"
        )
    place = run_dir.parent
    runs = sorted({str(path.parent) for path in place.glob(f"*/{RUN}")}) if place.is_dir() else []
    there = f"runs there: {', '.join(runs)}" if runs else f"{place} holds no run"
    fault = f"no {run_dir / STATE}" if run_dir.is_dir() else f"no folder {run_dir}"
    return f"{fault}; {there}. Fix: give the output folder of a run"


def read_log(path: Path) -> list[Record]:
    """Return the `log_history` of a trainer_state.json, without the steps that a resumed run did again.

    A step lower than the one before it means that training went back to a checkpoint: the later steps logged until then
    belong to a model that no longer exists. The order within a step is kept.

    Raises:
        RecordError: if there is none, or it is not what the Trainer writes.
    """
    if not path.is_file():
        raise RecordError(f"no {path}. Fix: give the output folder of a run; if it is one, {SAVE_AGAIN}")
    state = _read_json(path, SAVE_AGAIN)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list) or not all(isinstance(e, dict) and _is_step(e.get("step")) for e in history):
        raise RecordError(
            f'{path}: expected {{"log_history": [{{"step": 0, …}}, …]}} as written by transformers\' Trainer. '
            f"Fix: {SAVE_AGAIN}"
        )
    kept: list[Record] = []
    for entry in history:
        while kept and kept[-1]["step"] > entry["step"]:
            kept.pop()
        kept.append(entry)
    return kept


def _is_step(step: Any) -> TypeGuard[int]:
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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of a run's evaluation.json, the base first; where it has none to show, `why_none` is a sentence."""

    results: list[Result]
    why_none: str = ""


def read_evaluation(run_dir: Path) -> Evaluation:
    """Read evaluation.json, unless the run was trained further after it: then the model it measured is gone.

    Raises:
        RecordError: as `read_results`.
    """
    path = run_dir / EVALUATION
    if not path.is_file():
        return Evaluation([], f"There is no {EVALUATION} in the run's folder yet.")
    results = read_results(path)
    if outdated := _outdated(results[-1], run_dir):
        return Evaluation([], f"{EVALUATION} is not of the model that the run has now: {outdated}.")
    return Evaluation(results)


def _outdated(result: Result, run_dir: Path) -> str | None:
    """Why an evaluation is not of the newest model in a run's folder, in words; None if it is, or nobody can say."""
    states = _states(run_dir)
    if result.state:
        return is_outdated(result.state, max(states, key=_step_of).parent) if states else None
    is_older = states and max(path.stat().st_mtime for path in states) > (run_dir / EVALUATION).stat().st_mtime
    return "it is older than the newest checkpoint" if is_older else None


def how_to_evaluate(run_dir: Path) -> str:
    """The command that measures base and trained model of a run on the problems that it holds out.

    Without a readable run.json the base is not known, and the trained model is measured alone.
    """
    try:
        run = read_run(run_dir / RUN)
    except RecordError:
        run = {}
    checkpoints = sorted(run_dir.glob("checkpoint-*"), key=lambda path: _step_of(path / STATE))
    has_model = any((run_dir / name).is_file() for name in ("config.json", "adapter_config.json"))
    trained = checkpoints[-1] if checkpoints and not has_model else run_dir
    models = [str(model) for model in (run.get("model"), trained) if model]
    return shlex.join(["python", "scripts/evaluate.py", *models, "--out", str(run_dir / EVALUATION)])


def read_results(path: Path) -> list[Result]:
    """Return the one or two results of an evaluation.json, the base first; none if there is no such file.

    Raises:
        RecordError: if it is not what scripts/evaluate.py writes: which result, and what is wrong.
    """
    if not path.exists():
        return []
    fix = f"make it again with `{how_to_evaluate(path.parent)}`, or remove it"
    raw = _read_json(path, fix)
    if not isinstance(raw, list) or not 1 <= len(raw) <= 2:
        raise RecordError(f"{path}: expected a list of one or two results (base, trained). Fix: {fix}")
    results = []
    for index, item in enumerate(raw):
        try:
            results.append(_parse_result(item))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise RecordError(f"{path}, result {index}: {what}. Fix: {fix}") from error
    return results


def _parse_result(raw: Record) -> Result:
    return Result(
        model=_text("model", raw["model"]),
        dataset=_text_or_none("dataset", raw.get("dataset")),
        puzzles=int(raw["puzzles"]),
        held_out=held_out if isinstance(held_out := raw.get("held_out"), bool) else None,
        state=state if isinstance(state := raw.get("state"), dict) else None,
        settings=dict(raw.get("settings") or {}),
        seconds=float(raw["seconds"]) if is_finite(raw.get("seconds")) else None,
        metrics=_parse_metrics(raw["metrics"]),
        groups={str(kind): _parse_groups(members) for kind, members in (raw.get("groups") or {}).items()},
        reasons={str(reason): float(share) for reason, share in (raw.get("reasons") or {}).items()},
        samples=[_parse_sample(sample) for sample in raw.get("samples") or []],
        asked=(raw.get("per_puzzle") or {}).get("key"),
        data=data if isinstance(data := raw.get("data"), dict) else {},
    )


def _parse_metrics(raw: Mapping[str, Record | None]) -> dict[str, Interval]:
    """Metrics that have no value (arithmetic, where nobody calculated) are left out."""
    found = {}
    for name, metric in raw.items():
        if metric and is_finite(metric["value"]):
            ends = [float(metric[key]) for key in ("value", "low", "high")]
            if not all(map(math.isfinite, ends)):
                raise ValueError(f"the interval of {name!r} is {ends}")
            found[name] = Interval(*ends)
    return found


def _parse_groups(raw: Mapping[str, Record] | None) -> dict[str, Group]:
    return {name: Group(int(g["puzzles"]), _parse_metrics(g["metrics"])) for name, g in (raw or {}).items()}


def _parse_sample(raw: Record) -> Sample:
    return Sample(
        key=_text("key", raw["key"]),
        shown=_text("shown", raw["shown"]),
        row=dict(raw.get("row") or {}),
        groups=[_text(kind, name) for kind, name in (raw.get("groups") or {}).items()],
        completion=_text("completion", raw["completion"]),
        reason=_text_or_none("reason", raw.get("reason")),
        **{key: value if is_finite(value := raw.get(key)) else None for key in SAMPLE_NUMBERS},
        **{key: value if isinstance(value := raw.get(key), bool) else None for key in SAMPLE_FLAGS},
    )


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{key!r} is {json.dumps(value)}, which is not text")
    return value


def _text_or_none(key: str, value: Any) -> str | None:
    return None if value is None else _text(key, value)


def read_run(path: Path) -> Record:
    """Return a run.json; empty if there is no such file.

    Raises:
        RecordError: if it is not a JSON object.
    """
    if not path.exists():
        return {}
    run = _read_json(path, "correct or remove it")
    if not isinstance(run, dict):
        raise RecordError(f'{path}: expected an object like {{"seed": 42}}. Fix: correct or remove it')
    return run


def is_cold_start(run: Record) -> bool:
    """Whether a run.json is of a run on demonstrations (`method: sft`)."""
    settings = run.get("settings")
    return isinstance(settings, Mapping) and settings.get("method") == "sft"


def read_object(path: Path) -> Record:
    """The JSON object in a file; empty if it can't be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_json(path: Path, fix: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even UTF-8
        raise RecordError(f"{path} is not JSON ({error}). Fix: {fix}") from None
