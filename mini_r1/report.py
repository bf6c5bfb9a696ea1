"""The report of a run: plots of the four curves, and one page that says what training changed.

It is made of what the run left in its folder (`mini_r1.run_records`) and writes `report/`: PNG files, and `index.html`
with everything embedded, which can be mailed or opened from a disk.

Every sentence on the page is computed from those files. A difference is called one only where the two intervals do not
overlap. Completions are text by a model, so they are never trusted: the template escapes whatever it prints, and the
page forbids scripts and all outside resources.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mini_r1.plots import DARK, LIGHT, PANELS, Panel, draw
from mini_r1.rewards import Reason
from mini_r1.run_records import (
    HOW_TO_EVALUATE,
    Group,
    Interval,
    Record,
    Result,
    Sample,
    is_finite,
    points,
    read_log,
    read_results,
    read_run,
)

MAX_SAMPLES = 20
TEMPLATE = "report.html.j2"


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
            text = _duration(value) if key == "seconds" and is_finite(value) else str(value)
            rows.append((RUN_LABELS.get(key, key), text))
    if results:
        last = results[-1]
        rows += [("evaluated on", f"{last.puzzles} puzzles" + (f" of {last.dataset}" if last.dataset else ""))]
        rows += [(f"evaluation: {key.replace('_', ' ')}", str(value)) for key, value in last.settings.items()]
    for role, result in zip(_columns(results), results, strict=True):
        if result.seconds is not None:
            rows.append((f"evaluation time, {role[0]}", _duration(result.seconds)))
    return rows
