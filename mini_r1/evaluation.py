"""Evaluate a policy on held-out puzzles: generate completions, score them with the rewards, say how sure the result is.

Only `evaluate` needs a model; `score` and `summarise` take texts, so they judge completions from anywhere. A text is
right or wrong by `mini_r1.rewards` alone.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mini_r1.chat_template import PromptSettings
from mini_r1.countdown import COLUMNS
from mini_r1.metrics import metric_of
from mini_r1.problems import UserError
from mini_r1.prompts import build_prompts
from mini_r1.rewards import Reason, judge_equation, judge_format
from mini_r1.sampling import Completion, generate_completions
from mini_r1.solver import MAX_NUMBERS, difficulty
from mini_r1.statistics import Estimate, bootstrap_ratios, paired_difference, pass_at_k
from mini_r1.traces import Thinking, judge_thinking

SAMPLES_KEPT = 16  # completions quoted in a result
DIFFICULTIES = ("easy", "medium", "hard", "unsolvable", "unknown")
# Numerator and denominator in `Thinking`; each equation or attempt counts alike, so that a long thinking weighs more.
RATIOS = {
    "arithmetic": ("right", "equations"),
    "repeats": ("repeats", "attempts"),
    "foreign": ("foreign", "attempts"),
    "false_yes": ("false_yes", "yes"),
    "false_no": ("false_no", "solutions"),
}

Result = dict[str, Any]


class SettingsError(UserError, ValueError):
    """An evaluation can't be done in this way; the message says which value is wrong and what is allowed."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate; the same settings and batch size on the same machine give the same numbers.

    Attributes:
        samples: completions sampled per puzzle, beside a greedy one.
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
    """What the rewards and `judge_thinking` say of one completion."""

    equation_reward: float
    format_reward: float
    reason: Reason
    thinking: Thinking
    tokens: int
    truncated: bool


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    puzzles: Dataset,
    settings: EvaluationSettings,
    *,
    model_name: str | None = None,
    dataset_name: str | None = None,
    prompt_settings: PromptSettings | None = None,
) -> Result:
    """Sample `settings.samples` completions and a greedy one for each puzzle, and score them.

    Args:
        puzzles: rows with nums, target and perhaps difficulty.
        model_name, dataset_name: how the result names them.
        prompt_settings: those of the run that trained the model; by default those of a new run.

    Returns:
        what `summarise` returns, with model, dataset, number of puzzles, settings and seconds in front; JSON-able.

    Raises:
        ValueError: as `render_prompts`.
    """
    started = time.monotonic()
    prompts = render_prompts(puzzles, tokenizer, settings.max_prompt_length, prompt_settings)
    nums, targets = puzzles["nums"][:], puzzles["target"][:]
    generate = partial(
        generate_completions,
        model,
        tokenizer,
        prompts,
        max_completion_length=settings.max_completion_length,
        batch_size=settings.batch_size,
        seed=settings.seed,
        reward=lambda index, text: judge_equation(text, targets[index], nums[index]).reward,
    )
    sampled = generate(samples=settings.samples, temperature=settings.temperature)
    greedy = generate(samples=1, temperature=0)
    return {
        "model": model_name or model.name_or_path or type(model).__name__,
        "dataset": dataset_name,
        "puzzles": len(puzzles),
        "settings": asdict(settings) | {"ks": list(settings.ks)},
        "seconds": round(time.monotonic() - started, 1),
        **summarise(puzzles, sampled, greedy, settings),
    }


def render_prompts(
    puzzles: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_length: int,
    prompt_settings: PromptSettings | None = None,
) -> list[str]:
    """Return the prompt of each puzzle, as the trainer makes it.

    Raises:
        PromptError: if there are no puzzles, or the tokenizer does not fit (`mini_r1.prompts`).
        SettingsError: if a prompt is too long.
    """
    rows = Dataset.from_dict({column: puzzles[column][:] for column in COLUMNS})
    with_prompts, dropped = build_prompts(rows, tokenizer, max_prompt_length, prompt_settings)
    if dropped:
        raise SettingsError(
            f"{dropped} of {len(puzzles)} prompts are longer than max_prompt_length={max_prompt_length} tokens: "
            f"raise it, since leaving them out would change what is measured"
        )
    return list(with_prompts["prompt"])


# --- scores and their summary --------------------------------------------------------------------------------------


def score(puzzles: Dataset, completions: Sequence[Sequence[Completion]]) -> list[list[Score]]:
    """Score the completions of each puzzle.

    Raises:
        ValueError: if there are not as many lists of completions as puzzles.
    """
    rows = zip(puzzles["nums"], puzzles["target"], completions, strict=True)
    return [[_score(nums, target, completion) for completion in written] for nums, target, written in rows]


def _score(nums: Sequence[int], target: int, completion: Completion) -> Score:
    verdict = judge_equation(completion.text, target, nums)
    return Score(
        verdict.reward,
        float(judge_format(completion.text)),
        verdict.reason,
        judge_thinking(completion.text, nums, target),
        completion.tokens,
        completion.truncated,
    )


def summarise(
    puzzles: Dataset,
    sampled: Sequence[Sequence[Completion]],
    greedy: Sequence[Sequence[Completion]],
    settings: EvaluationSettings,
) -> Result:
    """Score completions and summarise the scores.

    Args:
        sampled: `settings.samples` completions of each puzzle.
        greedy: one of each.

    Returns:
        metrics (each with value, low and high), by_difficulty, by_numbers, reasons, per_puzzle and samples; JSON-able.
        All but the metric `greedy` are of the sampled completions.
    """
    sampled_scores, greedy_scores = score(puzzles, sampled), [row[0] for row in score(puzzles, greedy)]
    difficulties = _difficulties(puzzles)

    def metrics(indices: Sequence[int]) -> Result:
        chosen = [sampled_scores[i] for i in indices], [greedy_scores[i] for i in indices]
        return {name: asdict(estimate) for name, estimate in _measure(*chosen, settings).items()}

    def by(labels: Sequence[str], order: Sequence[str]) -> Result:
        groups = defaultdict(list)
        for index, label in enumerate(labels):
            groups[label].append(index)
        return {
            name: {"puzzles": len(groups[name]), "metrics": metrics(groups[name])} for name in order if name in groups
        }

    how_many = [len(nums) for nums in puzzles["nums"]]
    reasons = Counter(one.reason for row in sampled_scores for one in row)
    return {
        "metrics": metrics(range(len(puzzles))),
        "by_difficulty": by(difficulties, DIFFICULTIES),
        "by_numbers": by(list(map(str, how_many)), list(map(str, sorted(set(how_many))))),
        "reasons": {reason.value: reasons[reason] / reasons.total() for reason in Reason},
        "per_puzzle": {
            "nums": puzzles["nums"][:],
            "target": puzzles["target"][:],
            "pass@1": [_solved(row) / len(row) for row in sampled_scores],
        },
        "samples": _quote(puzzles, difficulties, sampled, sampled_scores),
    }


def _measure(
    sampled: Sequence[Sequence[Score]], greedy: Sequence[Score], settings: EvaluationSettings
) -> dict[str, Estimate]:
    """Estimate every metric over the puzzles given."""

    def mean(field: str) -> list[float]:
        return [sum(getattr(one, field) for one in row) / len(row) for row in sampled]

    def thought(field: str) -> list[float]:
        return [sum(getattr(one.thinking, field) for one in row) for row in sampled]

    means = {f"pass@{k}": [pass_at_k(len(row), _solved(row), k) for row in sampled] for k in sorted(set(settings.ks))}
    means["greedy"] = [one.equation_reward for one in greedy]
    fields = {"format": "format_reward", "length": "tokens", "truncated": "truncated"}
    means |= {name: mean(field) for name, field in fields.items()}
    means["attempts"] = [total / len(row) for total, row in zip(thought("attempts"), sampled, strict=True)]
    ones = [1.0] * len(sampled)
    ratios: dict[str, tuple[list[float], list[float]]] = {name: (values, ones) for name, values in means.items()}
    ratios |= {name: (thought(above), thought(below)) for name, (above, below) in RATIOS.items()}
    return bootstrap_ratios(ratios, seed=settings.seed)


def _solved(row: Sequence[Score]) -> int:
    return sum(one.reason is Reason.CORRECT for one in row)


def _difficulties(puzzles: Dataset) -> list[str]:
    """The label of each row, computed where there is none."""
    given = puzzles["difficulty"] if "difficulty" in puzzles.column_names else [None] * len(puzzles)
    rows = zip(given, puzzles["nums"], puzzles["target"], strict=True)
    return [label or _difficulty(nums, target) for label, nums, target in rows]


def _difficulty(nums: Sequence[int], target: int) -> str:
    return (difficulty(nums, target) or "unsolvable") if len(nums) <= MAX_NUMBERS else "unknown"


def _quote(
    puzzles: Dataset,
    difficulties: Sequence[str],
    sampled: Sequence[Sequence[Completion]],
    scores: Sequence[Sequence[Score]],
) -> list[Result]:
    """The first sampled completion of the first puzzles, with its score."""
    return [
        {
            "nums": puzzles[i]["nums"],
            "target": puzzles[i]["target"],
            "difficulty": difficulties[i],
            "completion": sampled[i][0].text,
            "equation_reward": scores[i][0].equation_reward,
            "format_reward": scores[i][0].format_reward,
            "reason": scores[i][0].reason.value,
            "attempts": scores[i][0].thinking.attempts,
            "tokens": scores[i][0].tokens,
        }
        for i in range(min(SAMPLES_KEPT, len(puzzles)))
    ]


# --- the table -----------------------------------------------------------------------------------------------------


def format_table(results: Sequence[Result]) -> str:
    """Lay out results on the same puzzles side by side; two also get their paired difference in pass@1.

    Raises:
        ValueError: if there are no results, or they are not on the same puzzles.
    """
    if not results or any(_puzzles(result) != _puzzles(results[0]) for result in results):
        raise ValueError("a table takes one or more results on the same puzzles, in the same order")
    first = results[0]
    rows = {name: [_cell(name, result["metrics"].get(name)) for result in results] for name in first["metrics"]}
    for group, suffix in (("by_difficulty", ""), ("by_numbers", " numbers")):
        for name, part in first[group].items():
            label = f"pass@1, {name}{suffix} ({part['puzzles']})"
            rows[label] = [_cell("pass@1", result[group][name]["metrics"]["pass@1"]) for result in results]
    header = ["", *(str(result["model"]) for result in results)]
    lines = [header, *([name, *cells] for name, cells in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    settings = first["settings"]
    title = (
        f"{first['puzzles']} puzzles of {first['dataset'] or 'no name'}, {settings['samples']} samples each at "
        f"temperature {settings['temperature']:g}; in brackets the 95 % interval over puzzles"
    )
    return "\n".join([title, "", *table, *(["", _difference(*results)] if len(results) == 2 else [])])


def _puzzles(result: Result) -> tuple[Any, Any]:
    return result["per_puzzle"]["nums"], result["per_puzzle"]["target"]


def _cell(metric: str, estimate: dict[str, float | None] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "n/a"
    decimals = metric_of(metric).decimals_as_fraction
    value, low, high = (f"{estimate[part]:.{decimals}f}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _difference(first: Result, second: Result) -> str:
    pairs = (result["per_puzzle"]["pass@1"] for result in (first, second))
    estimate = paired_difference(*pairs, seed=first["settings"]["seed"])
    value, low, high = (f"{number:+.3f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"pass@1 of {second['model']} minus {first['model']}, puzzle by puzzle: {value} [{low}, {high}]"
