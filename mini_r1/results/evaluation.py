"""Evaluate a policy on held-out problems: generate completions, have the task judge them, say how sure the result is.

Only `evaluate` needs a model; `score` and `summarise` take texts, so they judge completions from anywhere. A text is
right or wrong by `Task.judge` alone, which is asked once for each.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mini_r1.generation.sampling import Completion, generate_completions
from mini_r1.program.problems import UserError
from mini_r1.prompts.build import build_prompts
from mini_r1.prompts.settings import PromptSettings
from mini_r1.results.metrics import as_fraction
from mini_r1.results.statistics import bootstrap_ratios, paired_difference, pass_at_k
from mini_r1.runs.records import Interval, Record
from mini_r1.tasks.task import CORRECT, Row, Task, Verdict, rows_of

SAMPLES_KEPT = 16  # completions quoted in a result

Judge = Callable[[int, str], Verdict]  # of a completion of the problem with this index


class SettingsError(UserError, ValueError):
    """An evaluation can't be done in this way; the message says which value is wrong and what is allowed."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate; the same settings and batch size on the same machine give the same numbers.

    Attributes:
        samples: completions sampled per problem, beside a greedy one.
        temperature: of the sampling; 0 is greedy.
        max_completion_length, max_prompt_length: in tokens.
        batch_size: sequences generated at a time.
        seed: of sampling and bootstrap.
        ks: which pass@k to report, 1 among them.

    Raises:
        ValueError: for a setting out of range.
    """

    samples: int = 4
    temperature: float = 1.0
    max_completion_length: int = 320
    max_prompt_length: int = 256
    batch_size: int = 256
    seed: int = 0
    ks: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self) -> None:
        for name in ("samples", "max_completion_length", "max_prompt_length", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}: it has to be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise SettingsError(f"temperature is {self.temperature}: it has to be 0 (greedy) or more")
        if self.seed < 0:
            raise SettingsError(f"seed is {self.seed}: it has to be 0 or more")
        if 1 not in self.ks:
            raise SettingsError(f"ks is {self.ks}: it has to include 1")
        for k in self.ks:
            if not 1 <= k <= self.samples:
                raise SettingsError(f"ks has {k}, but samples is {self.samples}: k has to be 1 to {self.samples}")


@dataclass(frozen=True, slots=True)
class Score:
    """What the task says of one completion.

    Attributes:
        counts: what `Task.measure` counts.
    """

    verdict: Verdict
    in_format: bool
    counts: Mapping[str, tuple[float, float]]
    tokens: int
    truncated: bool

    @property
    def solved(self) -> bool:
        """Whether it solves the problem."""
        return self.verdict.reason == CORRECT


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Dataset,
    task: Task,
    settings: EvaluationSettings,
    *,
    model_name: str | None = None,
    dataset_name: str | None = None,
    prompt_settings: PromptSettings | None = None,
) -> Record:
    """Sample `settings.samples` completions and a greedy one for each problem, and score them.

    Args:
        problems: rows of the task.
        task: what judges.
        model_name, dataset_name: how the result names them.
        prompt_settings: those of the run that trained the model; by default those of a new run.

    Returns:
        what `summarise` returns, with model, dataset, number of problems, settings and seconds in front; JSON-able.

    Raises:
        ValueError: as `render_prompts`.
    """
    started = time.monotonic()
    prompts = render_prompts(problems, task, tokenizer, settings.max_prompt_length, prompt_settings)
    judge = judge_once(task, problems)
    generate = partial(
        generate_completions,
        model,
        tokenizer,
        prompts,
        max_completion_length=settings.max_completion_length,
        batch_size=settings.batch_size,
        seed=settings.seed,
        reward=lambda index, text: float(judge(index, text).reason == CORRECT),
    )
    sampled = generate(samples=settings.samples, temperature=settings.temperature)
    greedy = generate(samples=1, temperature=0)
    return {
        "model": model_name or model.name_or_path or type(model).__name__,
        "dataset": dataset_name,
        "puzzles": len(problems),
        "settings": asdict(settings) | {"ks": list(settings.ks)},
        "seconds": round(time.monotonic() - started, 1),
        **summarise(problems, task, sampled, greedy, settings, judge),
    }


def judge_once(task: Task, problems: Dataset) -> Judge:
    """The task's judge of completions of these problems, which remembers what it has said."""
    rows = rows_of(problems)
    return cache(lambda index, completion: task.judge(completion, rows[index]))


def render_prompts(
    problems: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_length: int,
    prompt_settings: PromptSettings | None = None,
) -> list[str]:
    """Return the prompt of each problem, as the trainer makes it.

    Raises:
        PromptError: if there are no problems, or the tokenizer does not fit (`mini_r1.prompts.build`).
        SettingsError: if a prompt is too long.
    """
    rows = problems.select_columns(list(task.columns))
    with_prompts, dropped = build_prompts(rows, task, tokenizer, max_prompt_length, prompt_settings)
    if dropped:
        raise SettingsError(
            f"{dropped} of {len(problems)} prompts are longer than max_prompt_length={max_prompt_length} tokens: "
            f"raise it, since leaving them out would change what is measured"
        )
    return list(with_prompts["prompt"])


# --- scores and their summary --------------------------------------------------------------------------------------


def score(
    problems: Dataset, task: Task, completions: Sequence[Sequence[Completion]], judge: Judge | None = None
) -> list[list[Score]]:
    """Score the completions of each problem.

    Args:
        judge: one that knows some of the completions already (`judge_once`).

    Raises:
        ValueError: if there are not as many lists of completions as problems.
    """
    judge = judge or judge_once(task, problems)

    def scored(index: int, row: Row, completion: Completion) -> Score:
        text = completion.text
        counts = task.measure(text, row)
        return Score(judge(index, text), task.in_format(text), counts, completion.tokens, completion.truncated)

    rows = zip(rows_of(problems), completions, strict=True)
    return [[scored(index, row, one) for one in written] for index, (row, written) in enumerate(rows)]


def summarise(
    problems: Dataset,
    task: Task,
    sampled: Sequence[Sequence[Completion]],
    greedy: Sequence[Sequence[Completion]],
    settings: EvaluationSettings,
    judge: Judge | None = None,
) -> Record:
    """Score completions and summarise the scores.

    Args:
        sampled: `settings.samples` completions of each problem.
        greedy: one of each.
        judge: as in `score`.

    Returns:
        metrics (each with value, low and high), groups, reasons, per_puzzle and samples; JSON-able. All but the
        metric `greedy` are of the sampled completions.
    """
    sampled_scores = score(problems, task, sampled, judge)
    greedy_scores = [row[0] for row in score(problems, task, greedy, judge)]
    rows = rows_of(problems)
    labels = [task.groups(row) for row in rows]

    def metrics(indices: Sequence[int]) -> Record:
        chosen = [sampled_scores[i] for i in indices], [greedy_scores[i] for i in indices]
        return {name: asdict(measured) for name, measured in _measure(*chosen, settings).items()}

    def by(kind: str) -> Record:
        members = defaultdict(list)
        for index, label in enumerate(labels):
            if kind in label:
                members[label[kind]].append(index)
        order = in_natural_order(members, task.group_order.get(kind, ()))
        return {name: {"puzzles": len(members[name]), "metrics": metrics(members[name])} for name in order}

    reasons = Counter(str(one.verdict.reason) for row in sampled_scores for one in row)
    return {
        "metrics": metrics(range(len(problems))),
        "groups": {kind: by(kind) for kind in dict.fromkeys(kind for label in labels for kind in label)},
        "reasons": {reason: reasons[reason] / reasons.total() for reason in {**task.reasons, **reasons}},
        "per_puzzle": {
            "key": [task.key(row) for row in rows],
            "pass@1": [_solved(row) / len(row) for row in sampled_scores],
        },
        "samples": _quote(rows, task, sampled, sampled_scores),
    }


def in_natural_order(names: Iterable[str], first: Sequence[str] = ()) -> list[str]:
    """Names in the order of `first`, then the others, numbers in them by their size.

    >>> in_natural_order(["10 numbers", "hard", "4 numbers", "easy"], ("easy", "hard"))
    ['easy', 'hard', '4 numbers', '10 numbers']
    """

    def place(name: str) -> tuple[int, list[tuple[int, str]]]:
        parts = [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", name)]
        return (first.index(name) if name in first else len(first)), parts

    return sorted(names, key=place)


def _measure(
    sampled: Sequence[Sequence[Score]], greedy: Sequence[Score], settings: EvaluationSettings
) -> dict[str, Interval]:
    """Estimate every metric over the problems given."""

    def mean(field: str) -> list[float]:
        return [sum(getattr(one, field) for one in row) / len(row) for row in sampled]

    def counted(name: str, part: int) -> list[float]:
        return [sum(one.counts[name][part] for one in row) for row in sampled]

    means = {f"pass@{k}": [pass_at_k(len(row), _solved(row), k) for row in sampled] for k in sorted(set(settings.ks))}
    means["greedy"] = [float(one.solved) for one in greedy]
    means["mixed"] = [float(0 < _solved(row) < len(row)) for row in sampled]
    fields = {"format": "in_format", "length": "tokens", "truncated": "truncated"}
    means |= {name: mean(field) for name, field in fields.items()}
    ones = [1.0] * len(sampled)
    ratios: dict[str, tuple[list[float], list[float]]] = {name: (values, ones) for name, values in means.items()}
    ratios |= {name: (counted(name, 0), counted(name, 1)) for name in sampled[0][0].counts}
    return bootstrap_ratios(ratios, seed=settings.seed)


def _solved(row: Sequence[Score]) -> int:
    return sum(one.solved for one in row)


def _quote(
    rows: Sequence[Row],
    task: Task,
    sampled: Sequence[Sequence[Completion]],
    scores: Sequence[Sequence[Score]],
) -> list[Record]:
    """The first sampled completion of the first problems, with its score."""
    quoted = []
    for row, (completion, *_), (one, *_) in zip(rows[:SAMPLES_KEPT], sampled, scores, strict=False):
        counts = {"attempts": one.counts["attempts"][0]} if "attempts" in one.counts else {}
        quoted.append(
            {
                "row": {name: row[name] for name in task.columns},
                "key": task.key(row),
                "shown": task.show(row),
                "groups": task.groups(row),
                "completion": completion.text,
                "reason": str(one.verdict.reason),
                "solved": one.solved,
                "in_format": one.in_format,
                "tokens": one.tokens,
                **counts,
            }
        )
    return quoted


# --- the table -----------------------------------------------------------------------------------------------------


def format_table(results: Sequence[Record]) -> str:
    """Lay out results on the same problems side by side; two also get their paired difference in pass@1.

    Raises:
        ValueError: if there are no results, or they are not on the same problems.
    """
    if not results or any(_keys(result) != _keys(results[0]) for result in results):
        raise ValueError("a table takes one or more results on the same problems, in the same order")
    first = results[0]
    names = dict.fromkeys(name for result in results for name in result["metrics"])
    rows = {name: [_cell(name, result["metrics"]) for result in results] for name in names}
    for kind, members in first["groups"].items():
        for name, part in members.items():
            label = f"pass@1, {name} ({part['puzzles']})"
            rows[label] = [_cell("pass@1", result["groups"][kind][name]["metrics"]) for result in results]
    header = ["", *(str(result["model"]) for result in results)]
    lines = [header, *([name, *cells] for name, cells in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    settings = first["settings"]
    title = (
        f"{first['puzzles']} problems of {first['dataset'] or 'no name'}, "
        f"{settings['samples']} samples each at temperature {settings['temperature']:g}; in brackets the 95 % interval "
        f"over problems"
    )
    return "\n".join([title, "", *table, *(["", _difference(*results)] if len(results) == 2 else [])])


def _keys(result: Record) -> Any:
    return result["per_puzzle"]["key"]


def _cell(name: str, metrics: Record) -> str:
    return as_fraction(name, Interval(**metrics[name]) if name in metrics else None)


def _difference(first: Record, second: Record) -> str:
    pairs = (result["per_puzzle"]["pass@1"] for result in (first, second))
    gain = paired_difference(*pairs, seed=first["settings"]["seed"])
    interval = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"pass@1 of {second['model']} minus {first['model']}, problem by problem: {interval}"
