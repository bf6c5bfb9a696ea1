"""The gate before RL: from an evaluation, whether groups would teach anything; and that programs say so."""

import json
from pathlib import Path

import pytest

from conftest import TINY_BASE, TINY_RECIPE, dry_run
from mini_r1.results.start import judge_start
from mini_r1.runs.records import Interval


def metrics(solved: float, mixed: float, in_format: float = 0.5) -> dict[str, Interval]:
    values = {"pass@1": solved, "mixed": mixed, "format": in_format}
    return {name: Interval(value, value, value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("solved", "mixed", "cold", "words"),
    [
        (0.0, 0.0, True, "RL has next to nothing to start from: 0.0% of groups of 4 are mixed"),
        (0.01, 0.04, True, "cold start first"),
        (0.02, 0.05, False, "RL has something to start from"),
        (0.6, 0.5, False, "RL has something to start from"),
        (0.99, 0.01, False, "RL has little left to teach"),
    ],
)
def test_the_verdict(solved: float, mixed: float, cold: bool, words: str) -> None:
    start = judge_start(metrics(solved, mixed), samples=4)
    assert start and start.cold_start == cold and words in start.words


def test_one_sample_a_problem_says_nothing_of_groups() -> None:
    assert judge_start(metrics(0.0, 0.0), samples=1) is None


@pytest.mark.parametrize(
    ("solved", "mixed", "words"),
    [(0.0, 0.0, "warning: evaluation.json of"), (0.3, 0.6, "note: evaluation.json of")],
)
def test_the_preflight_reads_an_evaluation_of_the_base(tmp_path: Path, solved: float, mixed: float, words: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in TINY_BASE.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    measured = {n: {"value": m.value, "low": m.low, "high": m.high} for n, m in metrics(solved, mixed).items()}
    result = {"model": "base", "puzzles": 4, "settings": {"samples": 4}, "metrics": measured}
    data = {"task": "countdown", "dataset": "generated:tiny"}
    (base / "evaluation.json").write_text(json.dumps([result | {"data": data}]))
    assert words in dry_run(TINY_RECIPE, "--model_name_or_path", str(base))
    other = [result | {"data": data | {"dataset": "generated:countdown-6"}}]
    (base / "evaluation.json").write_text(json.dumps(other))
    assert "evaluation.json of" not in dry_run(TINY_RECIPE, "--model_name_or_path", str(base))
