"""The entry point `make aha`, short: the three commands of its recipe really turn the tiny base to enumerating."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, TINY_BASE, TINY_RECIPE

pytestmark = pytest.mark.slow

STEPS = 20
PLOTS = ("solve_rate", "format", "length", "attempts", "enumerating")


def script(name: str, *arguments: object) -> str:
    """Run one of the scripts as a user does; return what it printed."""
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aha") / "run"
    arguments = ("--max_steps", STEPS, "--lr_scheduler_type", "constant", "--eval_steps", STEPS)
    script("run_r1_grpo.py", "--config", TINY_RECIPE, *arguments, "--output_dir", folder)
    script("evaluate.py", TINY_BASE, folder, "--puzzles", 256, "--samples", 2, "--out", folder / "evaluation.json")
    script("report.py", folder)
    return folder


@pytest.fixture(scope="module")
def metrics(run_folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    base, trained = json.loads((run_folder / "evaluation.json").read_text())
    return base["metrics"], trained["metrics"]


def test_held_out_solve_rate_rises(metrics: tuple[dict[str, Any], dict[str, Any]]) -> None:
    base, trained = (one["pass@1"] for one in metrics)
    assert trained["low"] > base["high"], (base, trained)


def test_it_turns_from_guessing_to_enumerating(metrics: tuple[dict[str, Any], dict[str, Any]]) -> None:
    base, trained = (one["enumerating"]["value"] for one in metrics)
    assert base < 0.15
    assert trained > 0.5


def test_it_thinks_longer(metrics: tuple[dict[str, Any], dict[str, Any]]) -> None:
    base, trained = (one["attempts"] for one in metrics)
    assert trained["low"] > base["high"], (base, trained)


def test_it_does_not_forget_to_calculate(metrics: tuple[dict[str, Any], dict[str, Any]]) -> None:
    base, trained = (one["arithmetic"]["value"] for one in metrics)
    assert trained > base - 0.02


def test_it_leaves_a_report_with_every_plot(run_folder: Path) -> None:
    report = run_folder / "report"
    assert {f"{name}.png" for name in PLOTS} | {"aha.png"} == {path.name for path in report.glob("*.png")}
    assert (report / "index.html").read_text().count("data:image/png;base64,") >= len(PLOTS)
