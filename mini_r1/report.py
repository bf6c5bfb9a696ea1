"""The report of a run: plots of the four curves, and one page that says what training changed.

It reads what a run leaves in its folder: `trainer_state.json` (the curves, written by transformers' Trainer), and where
they exist `evaluation.json` (base and trained model on the same held-out puzzles) and `run.json` (how it was run). It
writes `report/`: PNG files, and `index.html` with everything embedded, which can be mailed or opened from a disk.

Every sentence on the page is computed from those files. A difference is called one only where the two intervals do not
overlap. Completions are text by a model, so they are never trusted: the template escapes whatever it prints, and the
page forbids scripts and all outside resources.
"""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # a Figure of our own: pyplot would choose a backend for the whole process
from matplotlib.ticker import MaxNLocator

from mini_r1.rewards import Reason

MAX_SAMPLES = 20
TEMPLATE = "report.html.j2"
SAVE_AGAIN = "let the run finish, or copy the trainer_state.json of its last checkpoint-N/ here"
HOW_TO_EVALUATE = "python scripts/evaluate.py BASE TRAINED --out {run_dir}/evaluation.json"

Record = dict[str, Any]  # a JSON object
Points = dict[int, float]  # training step -> value


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot against the training step; `key` is the metric's name in `log_history`, held out `eval_` + key."""

    name: str  # of its PNG file
    title: str
    key: str
    label: str  # of the y axis, with its unit
    is_rate: bool = False  # a share from 0 to 1, shown from 0 % to 100 %


PANELS = (
    Panel("solve_rate", "Solve rate", "rewards/equation_reward_func/mean", "puzzles solved (%)", is_rate=True),
    Panel("format", "Format rate", "rewards/format_reward_func/mean", "completions in the format (%)", is_rate=True),
    Panel("length", "Completion length", "completions/mean_length", "tokens per completion"),
    Panel("attempts", "Attempts", "thinking/attempts", "attempts per completion"),
)


@dataclass(frozen=True, slots=True)
class Colours:
    """Of a plot. Train and held out are from Okabe and Ito's palette, which the colour-blind can tell apart."""

    background: str
    ink: str
    grid: str
    train: str
    held_out: str


LIGHT = Colours("#ffffff", "#1f2328", "#d8dee4", train="#0072B2", held_out="#D55E00")
DARK = Colours("#161b22", "#e6edf3", "#343b45", train="#56B4E9", held_out="#E69F00")

METRICS = {  # name in evaluation.json -> what it is called on the page; in the page's order
    "greedy": "solved by the greedy completion",
    "format": "completions in the format",
    "length": "completion length",
    "truncated": "cut off at the token limit",
    "attempts": "attempts per completion",
    "arithmetic": "equations in the thinking that are right",
}
UNITS = {"length": "tokens", "attempts": ""}  # every other metric is a share

REASONS = {
    Reason.CORRECT: "uses every number once and reaches the target",
    Reason.NO_ANSWER: "no finished answer block",
    Reason.NOT_ALLOWED: "something else than numbers, + − × ÷ and brackets",
    Reason.WRONG_NUMBERS: "a number left out, used twice or made up",
    Reason.WRONG_VALUE: "does not reach the target",
    Reason.DIVISION_BY_ZERO: "divides by zero",
}

RUN_LABELS = {
    "command": "command",
    "receipe": "recipe",
    "model": "base model",
    "hardware": "hardware",
    "seconds": "wall-clock time",
    "steps": "steps",
    "seed": "seed",
}


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


def write_report(run_dir: Path) -> list[Path]:
    """Write `run_dir`/report/ and return the paths: aha.png, the PNG of each panel, and index.html.

    All is made before anything is written, each file replaces its forerunner at once, and the same inputs give the same
    bytes: it can be run again at any time, also during training.

    Raises:
        FileNotFoundError: without `run_dir`/trainer_state.json.
        ValueError: if a file is not what its writer would have written; says which and what to do.
    """
    log = read_log(run_dir / "trainer_state.json")
    results = read_results(run_dir / "evaluation.json")
    run = read_run(run_dir / "run.json")
    files = {"aha.png": draw(PANELS, log, LIGHT)} | {f"{p.name}.png": draw([p], log, LIGHT) for p in PANELS}
    page = render_page(run_dir, log, results, run, files)
    files["index.html"] = page.encode("utf-8", errors="backslashreplace")  # a completion may hold half a surrogate pair
    folder = run_dir / "report"
    folder.mkdir(exist_ok=True)
    return [_replace(folder / name, content) for name, content in files.items()]


def _replace(path: Path, content: bytes) -> Path:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    return unfinished.replace(path)


# --- reading -------------------------------------------------------------------------------------------------------


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
    return {entry["step"]: float(entry[key]) for entry in log if _is_finite(entry.get(key))}


def _is_finite(value: Any) -> bool:
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
        seconds=float(raw["seconds"]) if _is_finite(raw.get("seconds")) else None,
        metrics=_parse_metrics(raw["metrics"]),
        by_difficulty=_parse_groups(raw.get("by_difficulty")),
        by_numbers=_parse_groups(raw.get("by_numbers")),
        reasons={str(reason): float(share) for reason, share in (raw.get("reasons") or {}).items()},
        samples=[_parse_sample(sample) for sample in raw.get("samples") or []],
        asked={key: (raw.get("per_puzzle") or {}).get(key) for key in ("nums", "target")},
    )


def _parse_metrics(raw: Mapping[str, Record | None]) -> dict[str, Interval]:
    """Metrics that have no value (arithmetic, where nobody calculated) are left out."""
    measured = {name: metric for name, metric in raw.items() if metric and _is_finite(metric["value"])}
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


# --- plots ---------------------------------------------------------------------------------------------------------


def draw(panels: Sequence[Panel], log: Sequence[Record], colours: Colours) -> bytes:
    """Return a PNG with the panels, two a row; one panel is 900 x 600 pixels, four are 1650 x 1125."""
    rows, columns = math.ceil(len(panels) / 2), min(len(panels), 2)
    size, dpi = ((5, 10 / 3), 180) if len(panels) == 1 else ((11, 3.75 * rows), 150)  # inches; one: legible on a phone
    figure = Figure(figsize=size, dpi=dpi, layout="constrained", facecolor=colours.background)
    for index, panel in enumerate(panels):
        _draw_panel(figure.add_subplot(rows, columns, index + 1), panel, log, colours)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_color(colours.ink)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_panel(axes: Axes, panel: Panel, log: Sequence[Record], colours: Colours) -> None:
    scale = 100 if panel.is_rate else 1
    train, held_out = (
        {step: scale * value for step, value in points(log, key).items()} for key in (panel.key, f"eval_{panel.key}")
    )
    steps, values = list(train), list(train.values())
    axes.plot(steps, values, color=colours.train, linewidth=0.7, alpha=0.5, label="training batch")
    axes.plot(steps, smooth(values), color=colours.train, linewidth=2, label="training batch, smoothed")
    style: Record = {"color": colours.held_out, "linestyle": ":", "linewidth": 1.2, "marker": "o", "markersize": 5}
    # Markers at the edge stay whole. What is not clipped takes part in the layout, and without points would spoil it.
    style |= {"clip_on": False, "in_layout": False, "zorder": 3}
    axes.plot(list(held_out), list(held_out.values()), **style, label="held-out puzzles")
    axes.set_xlim(0, max([*train, *held_out], default=1) or 1)
    if not train and not held_out:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=colours.ink)
    if panel.is_rate:
        axes.set_ylim(0, 100)
    else:
        axes.set_ylim(0, 1.08 * max([*values, *held_out.values()], default=1) or 1)
    _style(axes, panel, colours)


def _style(axes: Axes, panel: Panel, colours: Colours) -> None:
    axes.set_title(panel.title, loc="left", color=colours.ink, fontweight="bold")
    axes.set_xlabel("training step", color=colours.ink)
    axes.set_ylabel(panel.label, color=colours.ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_facecolor(colours.background)
    axes.grid(color=colours.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours.ink, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours.grid)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the running mean over a window of a tenth of the values around each; at the ends what there is of it.

    The window is centred: a moving average of the past would show everything later than it happened.

    >>> smooth([0, 3, 0])
    [1.5, 1.0, 1.5]
    """
    reach = max(1, len(values) // 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


# --- words and numbers ---------------------------------------------------------------------------------------------


def headline(results: Sequence[Result], log: Sequence[Record]) -> str:
    """Say in plain words what the numbers say, whichever way they went."""
    if not results:
        solved = points(log, f"eval_{PANELS[0].key}")
        if len(solved) < 2:
            return "This run has not been evaluated yet."
        (first, before), (last, after) = min(solved.items()), max(solved.items())
        return (
            f"During training, {100 * before:.1f} % of the held-out puzzles were solved at step {first} and "
            f"{100 * after:.1f} % at step {last}; without an evaluation there are no intervals."
        )
    if len(results) == 1:
        measured = [f"{METRICS.get(n, n)} {_text(n, results[0].metrics[n])}" for n in _headlined(results)]
        return f"{results[0].model} on {results[0].puzzles} held-out puzzles: {', '.join(measured)}."
    names = _headlined(results)
    before_after = [(n, results[0].metrics[n], results[1].metrics[n]) for n in names]
    sentences = [f"{_verb(n, b.change_to(a))}: {_text(n, b)} before, {_text(n, a)} after." for n, b, a in before_after]
    return " ".join(sentences) or "The two evaluations have no metric in common."


def _headlined(results: Sequence[Result]) -> list[str]:
    return [name for name in ("pass@1", "length", "attempts") if all(name in result.metrics for result in results)]


def _verb(name: str, change: int) -> str:
    same = "unchanged within the intervals"
    said = {
        "pass@1": (f"pass@1 is {same}", "pass@1 rose", "pass@1 fell"),
        "length": (f"Thinking length is {same}", "Thinking got longer", "Thinking got shorter"),
        "attempts": (f"Attempts are {same}", "The model tries more often", "The model tries less often"),
    }
    return said[name][change]  # 0, 1 and -1, the last


def _number(name: str, value: float) -> str:
    """The value of a metric without its unit: shares as per cent, all with as many digits as their unit has use for."""
    unit = UNITS.get(name, "%")
    return f"{100 * value:.1f}" if unit == "%" else f"{value:.{1 if unit else 2}f}"


def _unit(name: str) -> str:
    unit = UNITS.get(name, "%")
    return f" {unit}" if unit else ""


def _text(name: str, interval: Interval) -> str:
    return f"{_number(name, interval.value)}{_unit(name)} ({_range(name, interval)})"


def _range(name: str, interval: Interval) -> str:
    return f"{_number(name, interval.low)}–{_number(name, interval.high)}"


def _duration(seconds: float) -> str:
    """
    >>> _duration(42.31), _duration(90), _duration(3 * 3600 + 240)
    ('42.3 s', '1 min 30 s', '3 h 4 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


# --- page ----------------------------------------------------------------------------------------------------------


def render_page(
    run_dir: Path, log: Sequence[Record], results: Sequence[Result], run: Record, pngs: Mapping[str, bytes]
) -> str:
    """Return the page as HTML; `pngs` holds the light panels under their file names, the dark ones are drawn here."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    panels = [
        {
            "title": panel.title,
            "light": base64.b64encode(pngs[f"{panel.name}.png"]).decode(),
            "dark": base64.b64encode(draw([panel], log, DARK)).decode(),
            "alt": _describe(panel, log),
        }
        for panel in PANELS
    ]
    return environment.get_template(TEMPLATE).render(
        name=run_dir.resolve().name,
        headline=headline(results, log),
        columns=_columns(results),
        unlike=unlike(results),
        metrics=metric_rows(results),
        groups=[
            ("By difficulty", group_rows([result.by_difficulty for result in results])),
            ("By how many numbers", group_rows([result.by_numbers for result in results])),
        ],
        panels=panels,
        reasons=reason_rows(results),
        samples=sample_rows(results),
        facts=facts(log, results, run),
        how_to_evaluate=HOW_TO_EVALUATE.format(run_dir=run_dir),
    )


def _columns(results: Sequence[Result]) -> list[tuple[str, str]]:
    roles = ("base", "trained") if len(results) == 2 else ("model",)
    return [(role, result.model) for role, result in zip(roles, results, strict=False)]


def _describe(panel: Panel, log: Sequence[Record]) -> str:
    """The alternative text of a plot: where its curves begin and end."""
    parts = []
    for key, name in ((panel.key, "training batch"), (f"eval_{panel.key}", "held-out puzzles")):
        if curve := points(log, key):
            ends = [f"{curve[s]:.1%}" if panel.is_rate else f"{curve[s]:.2f}" for s in (min(curve), max(curve))]
            parts.append(f"{name} from {ends[0]} at step {min(curve)} to {ends[1]} at step {max(curve)}")
    return f"{panel.title}: {'; '.join(parts) or 'not recorded'}"


def unlike(results: Sequence[Result]) -> list[str]:
    """Say in what the two evaluations differ besides the model; a comparison needs this to be empty."""
    if len(results) < 2:
        return []
    base, trained = ({"dataset": r.dataset, "puzzles": r.puzzles} | r.settings for r in results)
    lines = [
        f"{key}: {base.get(key, 'not set')} for the base, {trained.get(key, 'not set')} for the trained model"
        for key in {**base, **trained}
        if base.get(key) != trained.get(key)
    ]
    if not lines and results[0].asked != results[1].asked:
        lines.append("the puzzles are others, or in another order")
    return lines


def metric_rows(results: Sequence[Result]) -> list[Record]:
    """One row a metric: its label, a cell for each model, and for two models the change."""
    found = {name for result in results for name in result.metrics}
    passes = sorted((n for n in found if n.startswith("pass@")), key=lambda n: (len(n), n))
    names = [*passes, *(n for n in METRICS if n in found), *sorted(found - set(passes) - set(METRICS))]
    return [_metric_row(METRICS.get(n, n), n, [result.metrics.get(n) for result in results]) for n in names]


def _metric_row(label: str, name: str, intervals: Sequence[Interval | None]) -> Record:
    cells = [i and {"value": _number(name, i.value) + _unit(name), "range": _range(name, i)} for i in intervals]
    row: Record = {"label": label, "cells": cells, "change": None}
    if len(intervals) == 2 and intervals[0] and intervals[1]:
        difference = _number(name, intervals[1].value - intervals[0].value)
        signed = difference.replace("-", "−") if difference.startswith("-") else f"+{difference}"
        unit = " points" if _unit(name) == " %" else _unit(name)
        row["change"] = {"text": signed + unit, "is_clear": intervals[0].change_to(intervals[1]) != 0}
    return row


def group_rows(groups: Sequence[Mapping[str, Group]]) -> list[Record]:
    """pass@1 for each kind of puzzle, in the order of the file."""
    rows = []
    for name in dict.fromkeys(name for group in groups for name in group):
        found = [group.get(name) for group in groups]
        row = _metric_row(name, "pass@1", [group.metrics.get("pass@1") if group else None for group in found])
        row["puzzles"] = " / ".join(dict.fromkeys(str(group.puzzles) for group in found if group))
        rows.append(row)
    return rows


def reason_rows(results: Sequence[Result]) -> list[Record]:
    """The share of every verdict for each model, in the order in which the verifier looks for them."""
    found = [reason for result in results for reason in result.reasons]
    names = list(dict.fromkeys([*(r.value for r in REASONS if r.value in found), *found]))
    meanings = {reason.value: meaning for reason, meaning in REASONS.items()}
    return [
        {
            "reason": name.replace("_", " "),
            "meaning": meanings.get(name, ""),
            "shares": [100 * r.reasons.get(name, 0) for r in results],
        }
        for name in names
    ]


def sample_rows(results: Sequence[Result]) -> list[Record]:
    """The puzzles that all models have completions for, with a completion of each; in the base's order, not picked.

    A puzzle is its numbers in any order and its target; the n-th completion of one model is put beside the n-th of the
    other.
    """
    keyed = [_by_puzzle(result.samples) for result in results]
    shared = [key for key in (keyed[0] if keyed else {}) if all(key in samples for samples in keyed)]
    rows = []
    for key in shared[:MAX_SAMPLES]:
        completions = [samples[key] for samples in keyed]
        first = completions[0]
        puzzle = {"nums": ", ".join(map(str, first.nums)), "target": first.target, "difficulty": first.difficulty}
        rows.append(puzzle | {"completions": [asdict(completion) for completion in completions]})
    return rows


def _by_puzzle(samples: Sequence[Sample]) -> dict[tuple[tuple[int, ...], int, int], Sample]:
    found: dict[tuple[tuple[int, ...], int, int], Sample] = {}
    for sample in samples:
        nums, count = tuple(sorted(sample.nums)), 0
        while (nums, sample.target, count) in found:
            count += 1
        found[nums, sample.target, count] = sample
    return found


def facts(log: Sequence[Record], results: Sequence[Result], run: Record) -> list[tuple[str, str]]:
    """How the run and its evaluation were done: label and value."""
    known = {"steps": max((entry["step"] for entry in log), default=0)} | run
    rows = []
    for key in [*(key for key in RUN_LABELS if key in known), *(key for key in known if key not in RUN_LABELS)]:
        if (value := known[key]) is not None:
            text = _duration(value) if key == "seconds" and _is_finite(value) else str(value)
            rows.append((RUN_LABELS.get(key, key), text))
    if results:
        last = results[-1]
        rows += [("evaluated on", f"{last.puzzles} puzzles" + (f" of {last.dataset}" if last.dataset else ""))]
        rows += [(f"evaluation: {key.replace('_', ' ')}", str(value)) for key, value in last.settings.items()]
    for role, result in zip(_columns(results), results, strict=True):
        if result.seconds is not None:
            rows.append((f"evaluation time, {role[0]}", _duration(result.seconds)))
    return rows
