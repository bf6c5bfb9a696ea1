"""How a run was made, in words: run.json and the settings of an evaluation, written for people.

A reader never sees a Python dictionary, list, None or nan.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mini_r1.runs.records import Progress, Record, Result, is_cold_start, is_finite

NOT_SET = "not set"
NOTHING: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of "How it was run".

    Attributes:
        form: "text", "code" (a command), "block" (lines, as of a recipe) or "folded" (a long block, closed at first).
    """

    label: str
    value: str
    form: str = "text"


def facts(progress: Progress, run: Record, results: Sequence[Result]) -> list[Fact]:
    """How the run and its evaluation were done. Keys of run.json that are unknown here are shown too."""
    known = {
        "command": lambda value: Fact("command", in_words(value), "code"),
        "model": lambda value: Fact("base model", in_words(value)),
        "adapter": lambda value: Fact("trained", "a LoRA adapter" if value else "all parameters"),
        "data": lambda value: Fact("problems", data_in_words(value)),
        "hardware": lambda value: Fact("hardware", in_words(value)),
        "processes": lambda value: Fact("training processes", in_words(value)),
        "seconds": lambda value: Fact("wall-clock time", duration(value) if is_finite(value) else in_words(value)),
        "seed": lambda value: Fact("seed", in_words(value)),
        "versions": lambda value: Fact("versions", in_words(value)),
        "recipe": lambda value: _block("recipe, with what the command line set", value, "block"),
        "settings": lambda value: _block("every setting, defaults included", value, "folded"),
    }
    told = [known[key](run[key]) for key in known if run.get(key) not in NOTHING]
    told.insert(min(1, len(told)), Fact("steps", steps_in_words(progress)))
    if is_cold_start(run):
        told.insert(1, Fact("learned from", "demonstrations (SFT)"))
    others = [key for key in run if key not in known and key != "steps" and run[key] not in NOTHING]
    told += [Fact(key.replace("_", " "), in_words(run[key])) for key in others]
    return told + _evaluation(results)


def _evaluation(results: Sequence[Result]) -> list[Fact]:
    if not results:
        return []
    last = results[-1]
    of = f" of {last.dataset}" if last.dataset else ""
    told = [Fact("evaluated on", f"{last.puzzles:,} {'held-out ' if last.held_out else ''}problems{of}")]
    told += [Fact("evaluated with", in_words(last.settings))] if last.settings else []
    seconds = [duration(result.seconds) for result in results if result.seconds is not None]
    return told + ([Fact("evaluation time", " and ".join(seconds))] if seconds else [])


def _block(label: str, value: Any, form: str) -> Fact:
    return Fact(label, as_yaml(value), form) if isinstance(value, Mapping) else Fact(label, in_words(value))


def as_yaml(value: Any) -> str:
    """A value as block-style YAML, without what isn't set.

    >>> print(as_yaml({"seed": 42, "revision": None, "reward_weights": [1.0, 1.0]}))
    seed: 42
    reward_weights:
    - 1.0
    - 1.0
    """
    kept = {str(key): item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else value
    text: str = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
    return text.rstrip()


def steps_in_words(progress: Progress) -> str:
    """How far the run is.

    >>> steps_in_words(Progress([], 12, 130)), steps_in_words(Progress([], 130, 130))
    ('12 of 130: under way, or stopped', '130')
    """
    if progress.is_finished:
        return f"{progress.step:,}"
    return f"{progress.step:,} of {progress.steps:,}: under way, or stopped"


def data_in_words(data: Any) -> str:
    """Which problems, and how they were split.

    >>> data_in_words({"dataset": "generated:tiny", "revision": None, "split": "train", "max_samples": 5000,
    ...     "test_size": 0.1, "split_seed": 42})
    'generated:tiny, split "train", at most 5,000 problems, 10 % of them held out (split seed 42)'
    """
    if not isinstance(data, Mapping):
        return in_words(data)
    size, share = data.get("max_samples"), data.get("test_size")
    held_out = f"{100 * share:g} % of them" if isinstance(share, float) else in_words(share)
    count = f"{size:,}" if isinstance(size, int) else in_words(size)
    words = {
        "dataset": in_words(data.get("dataset")),
        "revision": f"revision {in_words(data.get('revision'))}",
        "split": f'split "{in_words(data.get("split"))}"',
        "max_samples": f"at most {count} problems",
        "test_size": f"{held_out} held out",
        "split_seed": f"(split seed {in_words(data.get('split_seed'))})",
    }
    told = [text for key, text in words.items() if data.get(key) is not None]
    told += [f"{key.replace('_', ' ')} {in_words(data[key])}" for key in data if key not in words and data[key]]
    return ", ".join(told).replace(", (", " (") or NOT_SET


def in_words(value: Any) -> str:
    """Any value of a JSON file as a person would write it.

    >>> in_words({"samples": 4, "temperature": 1.0, "ks": [1, 2, 4], "revision": None, "greedy": True})
    'samples 4; temperature 1; ks 1, 2, 4; greedy yes'
    >>> in_words([]), in_words(None), in_words(50000), in_words(float("nan")), in_words(5e-05)
    ('none', 'not set', '50000', 'not a number', '5e-05')
    """
    match value:
        case None:
            return NOT_SET
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value)
        case float():
            return f"{value:g}" if math.isfinite(value) else "not a number"
        case Mapping():
            items = [f"{str(key).replace('_', ' ')} {in_words(v)}" for key, v in value.items() if v is not None]
            return "; ".join(items) or "none"
        case str():
            return value
        case Sequence():
            return ", ".join(map(in_words, value)) or "none"
    return str(value)


def duration(seconds: float) -> str:
    """
    >>> duration(42.31), duration(90), duration(3 * 3600 + 240)
    ('42.3 s', '1 min 30 s', '3 h 4 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
