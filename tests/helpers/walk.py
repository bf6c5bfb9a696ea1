"""A person's walk through the programs: real command lines, each a process of its own, in an environment of choice."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conftest import ROOT, SMALL, TINY_BASE, TINY_RECIPE
from helpers import walker
from helpers.walker import Step
from mini_r1.runs.identity import PRACTICE

IMPORTS = "imports"  # the name under which is told what the imports have printed
PUZZLE = ("--numbers", "3", "4", "5", "--target", "12")


@dataclass(frozen=True)
class Said:
    """What a command left: its status, and all that it printed."""

    status: int
    out: str
    err: str

    def lines(self) -> list[str]:
        """Every line as a terminal shows it, one after the other; a carriage return begins a new one."""
        return [line.rstrip() for line in (self.out + "\n" + self.err).replace("\r", "\n").splitlines() if line.strip()]


def usual_steps(folder: Path, *more: str, recipe: str = "") -> list[Step]:
    """The whole life of a small run: planned, trained, resumed, started once more, evaluated, asked, reported.

    Args:
        folder: gets the run, and a base without the record of what it has practised on: reading that one takes longer
            than all the rest.
        more: arguments of the training.
        recipe: lines that the recipe has beside those of the tiny one.
    """
    run, base = folder / "run", folder / "base"
    shutil.copytree(TINY_BASE, base, ignore=shutil.ignore_patterns(PRACTICE))
    settings = SMALL | {"model_name_or_path": base, "max_steps": 2, "output_dir": run}
    small = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    (folder / "recipe.yaml").write_text(TINY_RECIPE.read_text(encoding="utf-8") + recipe, encoding="utf-8")
    train = ("run_r1_grpo.py", "--config", str(folder / "recipe.yaml"), *small, *more)
    out = str(run / "evaluation.json")
    return [
        Step("plan", (*train, "--dry_run")),
        Step("train", train),
        Step("resume", (*train, "--max_steps", "4")),
        Step("again", (*train, "--max_steps", "4")),
        Step("evaluate", ("evaluate.py", str(base), str(run), "--puzzles", "4", "--samples", "2", "--out", out)),
        Step("ask", ("ask.py", str(run), *PUZZLE, "--seed", "1")),
        Step("report", ("report.py", str(run))),
    ]


def walk(steps: Sequence[Step], folder: Path, environment: Mapping[str, str | None]) -> dict[str, Said]:
    """Take the steps in an environment that differs from ours in the given variables (None: unset).

    Args:
        folder: where to keep what the commands print; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changed = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}
    variables = {name: value for name, value in changed.items() if value is not None}
    (folder / "steps.json").write_text(json.dumps([asdict(step) for step in steps]), encoding="utf-8")
    with (folder / f"{IMPORTS}.out").open("wb") as out, (folder / f"{IMPORTS}.err").open("wb") as err:
        command = [sys.executable, walker.__file__, str(folder)]
        started = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    statuses = {IMPORTS: started.returncode}
    if (folder / "statuses.json").exists():
        statuses |= json.loads((folder / "statuses.json").read_text(encoding="utf-8"))
    return {name: Said(status, *_printed(folder, name)) for name, status in statuses.items()}


def _printed(folder: Path, name: str) -> tuple[str, str]:
    out, err = ((folder / f"{name}.{end}").read_text(encoding="utf-8", errors="replace") for end in ("out", "err"))
    return out, err
