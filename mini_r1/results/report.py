"""The report of a run: plots of its curves, and one page that says what training changed.

It is made of what the run left in its folder (`mini_r1.runs.records`) and writes `report/`: PNG files, and `index.html`
with everything embedded, which can be mailed or opened from a disk.

Every sentence on the page is computed from those files. A difference is called one only where the two intervals do not
overlap. Completions are text by a model, so they are never trusted: the template escapes whatever it prints, and the
page forbids scripts and all outside resources.
"""

import base64
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from mini_r1.results.facts import facts, in_words, steps_in_words
from mini_r1.results.metrics import in_order, metric_of
from mini_r1.results.plots import DARK, LIGHT, Panel, draw, panels_of
from mini_r1.runs.records import (
    RUN,
    Group,
    Interval,
    Progress,
    Record,
    Result,
    Sample,
    how_to_evaluate,
    points,
    read_evaluation,
    read_progress,
    read_run,
)
from mini_r1.tasks.registry import find_task
from mini_r1.tasks.task import SOLVED, Task

MAX_SAMPLES = 20
TEMPLATE = "report.html.j2"
HEADLINED = ("pass@1", "length", "attempts")
REWARD = re.compile("rewards/(.+)/mean")  # what TRL logs of each reward of a training batch


def write_report(run_dir: Path) -> list[Path]:
    """Write `run_dir`/report/ and return the paths: aha.png, the PNG of each panel, and index.html.

    Everything is made before anything is written, each file replaces the old one atomically, and the same inputs give
    the same bytes: it can be run again at any time, also during training.

    Raises:
        RecordError: if the run has not saved anything yet, or a file is not what its writer would have written; says
            which and what to do.
    """
    content, log = read_content(run_dir), read_progress(run_dir).log
    panels = panels_of(log)
    files = {"aha.png": draw(panels, log, LIGHT)} | {f"{p.name}.png": draw([p], log, LIGHT) for p in panels}
    page = render_page(content, [_embed(panel, log) for panel in panels])
    files["index.html"] = page.encode("utf-8", errors="backslashreplace")  # a completion may hold half a surrogate pair
    folder = run_dir / "report"
    folder.mkdir(exist_ok=True)
    return [_replace(folder / name, content) for name, content in files.items()]


def _replace(path: Path, content: bytes) -> Path:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    return unfinished.replace(path)


# --- words and numbers ---------------------------------------------------------------------------------------------


def headline(results: Sequence[Result], progress: Progress) -> list[str]:
    """Say in plain words what the numbers say, whichever way they went: first what was trained for, then the losses."""
    if not results:
        return [_during_training(progress)]
    if len(results) == 1:
        measured = [f"{metric_of(n).label} {_text(n, results[0].metrics[n])}" for n in _in_all(HEADLINED, results)]
        told = [f"{results[0].model} on {results[0].puzzles} {_problems(results)}: {', '.join(measured)}."]
    else:
        before, after = (result.metrics for result in results)
        changes = [(n, before[n], after[n]) for n in _in_all(HEADLINED, results)]
        verbs = [_verb(n, b.change_to(a), _problems(results)) for n, b, a in changes]
        sentences = [
            f"{v}: {_text(n, b)} before, {_text(n, a)} after." for v, (n, b, a) in zip(verbs, changes, strict=True)
        ]
        told = [" ".join(sentences) or "The two evaluations have no metric in common.", *_losses(results)]
    return [*told, *_greedy_lags(results[-1])]


def _during_training(progress: Progress) -> str:
    solved = points(progress.log, f"eval_{SOLVED}")
    if len(solved) < 2:
        return "This run has not been evaluated yet."
    (first, before), (last, after) = min(solved.items()), max(solved.items())
    return (
        f"During training, {100 * before:.1f} % of the held-out problems were solved at step {first} and "
        f"{100 * after:.1f} % at step {last}; without an evaluation there are no intervals."
    )


def _in_all(names: Sequence[str], results: Sequence[Result]) -> list[str]:
    return [name for name in names if all(name in result.metrics for result in results)]


def _losses(results: Sequence[Result]) -> list[str]:
    """What got clearly worse, of all metrics that are better one way; the first sentence has said it of pass@1."""
    before, after = (result.metrics for result in results)
    names = [n for n in in_order(set(before) & set(after)) if n != "pass@1" and metric_of(n).better]
    worse = [n for n in names if before[n].change_to(after[n]) == -metric_of(n).better]
    if not worse:
        return ["Nothing else that was measured got clearly worse."] if names else []
    told = [f"{metric_of(n).label} {metric_of(n).text(before[n].value)} → {_text(n, after[n])}" for n in worse]
    return [f"Worse after training: {'; '.join(told)}."]


def _greedy_lags(result: Result) -> list[str]:
    greedy, sampled = result.metrics.get("greedy"), result.metrics.get("pass@1")
    if not greedy or not sampled or sampled.change_to(greedy) >= 0:
        return []
    return [
        f"Its greedy completion solves less than a sampled one: {_text('greedy', greedy)} against "
        f"{metric_of('pass@1').text(sampled.value)}."
    ]


def _problems(results: Sequence[Result]) -> str:
    """What the problems may be called: held out only where the record of the model that was trained says so."""
    return "held-out problems" if results[-1].held_out else "problems"


def unverified(results: Sequence[Result]) -> list[str]:
    """Say of which models nobody can say that they had not seen the problems before, or that they had."""
    why = {
        None: "nobody can say whether it was trained on any of these problems",
        False: "it was trained on some of them",
    }
    return [
        f"{role}: {why[r.held_out]}" for (role, _), r in zip(_columns(results), results, strict=True) if not r.held_out
    ]


def _verb(name: str, change: int, problems: str) -> str:
    same = "unchanged within the intervals"
    said = {
        "pass@1": (
            f"The share of {problems} that a sampled completion solves (pass@1) is {same}",
            f"More {problems} are solved by a sampled completion (pass@1)",
            f"Fewer {problems} are solved by a sampled completion (pass@1)",
        ),
        "length": (f"Thinking length is {same}", "Thinking got longer", "Thinking got shorter"),
        "attempts": (f"Attempts are {same}", "The model tries more often", "The model tries less often"),
    }
    return said[name][change]  # 0, 1 and -1, the last


def _text(name: str, interval: Interval) -> str:
    return f"{metric_of(name).text(interval.value)} ({_range(name, interval)})"


def _range(name: str, interval: Interval) -> str:
    return f"{metric_of(name).number(interval.low)}–{metric_of(name).number(interval.high)}"


# --- page ----------------------------------------------------------------------------------------------------------


def read_content(run_dir: Path) -> Record:
    """Read the files of a run and return what the template shows, all but the plots.

    Raises:
        RecordError: as `write_report`.
    """
    progress, evaluation, run = read_progress(run_dir), read_evaluation(run_dir), read_run(run_dir / RUN)
    results = evaluation.results
    task = find_task(next((data for data in (run.get("data"), *(r.data for r in results)) if data), {}))
    kinds = dict.fromkeys(kind for result in results for kind in result.groups)
    breakdowns = [(kind, group_rows([result.groups.get(kind, {}) for result in results])) for kind in kinds]
    return {
        "game": f"The task is {task.title}: {task.description}." if task else "",
        "name": run_dir.resolve().name,
        "progress": None if progress.is_finished else steps_in_words(progress),
        "headline": headline(results, progress),
        "columns": _columns(results),
        "unlike": unlike(results),
        "unverified": unverified(results),
        "rewards": reward_rows(progress.log),
        "metrics": metric_rows(results),
        "groups": [(title, rows) for title, rows in breakdowns if len(rows) > 1],  # one row is the table above again
        "reasons": reason_rows(results, task),
        "samples": sample_rows(results, task),
        "facts": facts(progress, run, results),
        "why_none": evaluation.why_none,
        "how_to_evaluate": how_to_evaluate(run_dir),
    }


def render_page(content: Record, panels: Sequence[Record]) -> str:
    """Return the page as HTML: `content` as `read_content` returns it, and the plots."""
    return _template().render(panels=panels, **content)


@functools.cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(TEMPLATE)


def _embed(panel: Panel, log: Sequence[Record]) -> Record:
    """A plot in both schemes as the page embeds it, without the legend that the page has once for all."""
    pictures = {
        scheme: base64.b64encode(draw([panel], log, colours, legend=False)).decode()
        for scheme, colours in (("light", LIGHT), ("dark", DARK))
    }
    return pictures | {"title": panel.title, "alt": _describe(panel, log)}


def _columns(results: Sequence[Result]) -> list[tuple[str, str]]:
    roles = ("base", "trained") if len(results) == 2 else ("model",)
    return [(role, result.model) for role, result in zip(roles, results, strict=False)]


def _describe(panel: Panel, log: Sequence[Record]) -> str:
    """The alternative text of a plot: where its curves begin and end."""
    parts = []
    for key, name in ((panel.key, "training batch"), (f"eval_{panel.key}", "held-out problems")):
        if curve := points(log, key):
            ends = [f"{curve[s]:.1%}" if panel.is_rate else f"{curve[s]:.2f}" for s in (min(curve), max(curve))]
            parts.append(f"{name} from {ends[0]} at step {min(curve)} to {ends[1]} at step {max(curve)}")
    return f"{panel.title}: {'; '.join(parts) or 'not recorded'}"


def unlike(results: Sequence[Result]) -> list[str]:
    """Say in what the two evaluations differ besides the model; a comparison needs this to be empty."""
    if len(results) < 2:
        return []
    base, trained = ({"dataset": r.dataset, "problems": r.puzzles} | r.settings for r in results)
    lines = [
        f"{key.replace('_', ' ')}: {in_words(base.get(key))} for the base, {in_words(trained.get(key))} for the trained"
        for key in {**base, **trained}
        if base.get(key) != trained.get(key)
    ]
    if not lines and results[0].asked != results[1].asked:
        lines.append("the problems are others, or in another order")
    return lines


def metric_rows(results: Sequence[Result]) -> list[Record]:
    """One row a metric: its label, a cell for each model, and for two models the change."""
    names = in_order({name for result in results for name in result.metrics})
    return [_metric_row(metric_of(n).label, n, [result.metrics.get(n) for result in results]) for n in names]


def _metric_row(label: str, name: str, intervals: Sequence[Interval | None]) -> Record:
    metric = metric_of(name)
    cells = [i and {"value": metric.text(i.value), "range": _range(name, i)} for i in intervals]
    row: Record = {"label": label, "cells": cells, "change": None}
    if len(intervals) == 2 and intervals[0] and intervals[1]:
        difference = metric.number(intervals[1].value - intervals[0].value)
        signed = difference.replace("-", "−") if difference.startswith("-") else f"+{difference}"
        unit = {"%": " points", "": ""}.get(metric.unit, f" {metric.unit}")
        direction = intervals[0].change_to(intervals[1])
        row["change"] = {"text": signed + unit, "says": _says(direction, metric.better)}
    return row


def _says(direction: int, better: int) -> str:
    """What a change means: "better", "worse", "within the intervals", or nothing where neither way is better."""
    if not direction:
        return "within the intervals"
    return {1: "better", -1: "worse", 0: ""}[direction * better]


def reward_rows(log: Sequence[Record]) -> list[Record]:
    """The mean of each reward over the training batches of the first and of the last tenth of the run, unweighted."""
    names = dict.fromkeys(match[1] for entry in log for key in entry if (match := REWARD.fullmatch(key)))
    rows = []
    for name in names:
        curve = points(log, f"rewards/{name}/mean")
        values = [curve[step] for step in sorted(curve)]
        if values:
            tenth = -(-len(values) // 10)
            means = [sum(part) / len(part) for part in (values[:tenth], values[-tenth:])]
            rows.append({"name": name, "means": [f"{mean:.3f}" for mean in means], "batches": tenth})
    return rows


def group_rows(groups: Sequence[Mapping[str, Group]]) -> list[Record]:
    """pass@1 for each kind of problem, in the order of the file."""
    rows = []
    for name in dict.fromkeys(name for group in groups for name in group):
        found = [group.get(name) for group in groups]
        row = _metric_row(name, "pass@1", [group.metrics.get("pass@1") if group else None for group in found])
        row["puzzles"] = " / ".join(dict.fromkeys(str(group.puzzles) for group in found if group))
        rows.append(row)
    return rows


def reason_rows(results: Sequence[Result], task: Task | None) -> list[Record]:
    """The share of every verdict for each model, in the order in which the judge looks for them."""
    meanings = task.reasons if task else {}
    found = [reason for result in results for reason in result.reasons]
    names = list(dict.fromkeys([*(reason for reason in meanings if reason in found), *found]))
    return [
        {
            "reason": name.replace("_", " "),
            "meaning": meanings.get(name, ""),
            "shares": [100 * r.reasons.get(name, 0) for r in results],
        }
        for name in names
    ]


def sample_rows(results: Sequence[Result], task: Task | None) -> list[Record]:
    """The problems that all models have completions for, with a completion of each; in the base's order, not picked.

    The n-th completion of one model is put next to the n-th of the other.
    """
    keyed = [_by_problem(result.samples) for result in results]
    shared = [key for key in (keyed[0] if keyed else {}) if all(key in samples for samples in keyed)]
    rows = []
    for key in shared[:MAX_SAMPLES]:
        completions = [samples[key] for samples in keyed]
        problem = {"shown": completions[0].shown, "groups": completions[0].groups}
        rows.append(problem | {"completions": [_sample(completion, task) for completion in completions]})
    return rows


def _sample(sample: Sample, task: Task | None) -> Record:
    """A completion for the page: what it was found to be, and its lines, each of its thinking with its marks."""
    known = {
        "tokens": (sample.tokens, f"{sample.tokens} tokens"),
        "attempts": (sample.attempts, f"{sample.attempts} attempt{'' if sample.attempts == 1 else 's'}"),
        "answer": (sample.solved, f"answer {'right' if sample.solved else 'wrong'}"),
        "format": (sample.in_format, f"format {'kept' if sample.in_format else 'broken'}"),
    }
    marked = _marks(sample, task) if task else []
    texts = sample.completion.split("\n")
    marks = marked + [[]] * (len(texts) - len(marked))
    return {
        "reason": sample.reason,
        "found": ", ".join(text for value, text in known.values() if value is not None),
        "lines": list(zip(texts, marks, strict=True)),
    }


def _marks(sample: Sample, task: Task) -> list[list[str]]:
    """The task's marks; none for a row that it can't read, so that the rest of the page is still made."""
    try:
        return task.marks(sample.completion, sample.row)
    except Exception:
        return []


def _by_problem(samples: Sequence[Sample]) -> dict[tuple[str, int], Sample]:
    found: dict[tuple[str, int], Sample] = {}
    for sample in samples:
        found[sample.key, sum(key == sample.key for key, _ in found)] = sample
    return found
