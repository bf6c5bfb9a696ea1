"""A person's walk through the programs: real command lines, each a process of its own, in an environment of choice.

Importing the libraries takes ten times as long as what the small commands do. So one process imports them, and each
command is a fork of it: it finds nothing changed but what the libraries' own import changes.
"""

import contextlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from conftest import ROOT, SMALL, TINY_BASE, TINY_RECIPE
from mini_r1.run_identity import PRACTICE

LIBRARIES = "torch", "transformers", "datasets", "peft", "trl", "trl.trainer.grpo_trainer", "tensorboard"
IMPORTS = "imports"  # the name under which is told what the imports have printed
PUZZLE = ("--numbers", "3", "4", "5", "--target", "12")


@dataclass(frozen=True)
class Step:
    """A command of a walk.

    Attributes:
        name: what it is called in the result.
        words: the script's name and its arguments.
        output: where its stdout goes; "head" is a reader that leaves after one line.
    """

    name: str
    words: tuple[str, ...]
    output: Literal["kept", "closed", "head"] = "kept"


@dataclass(frozen=True)
class Said:
    """What a command left: its status, and all that it printed."""

    status: int
    out: str
    err: str

    def lines(self) -> list[str]:
        """Every line as a terminal shows it, one after the other; a carriage return begins a new one."""
        return [line.rstrip() for line in (self.out + "\n" + self.err).replace("\r", "\n").splitlines() if line.strip()]


def usual_steps(folder: Path, *more: str) -> list[Step]:
    """The whole life of a small run: planned, trained, resumed, started once more, evaluated, asked, reported.

    Args:
        folder: gets the run, and a base without the record of what it has practised on: reading that one takes longer
            than all the rest.
        more: arguments of the training.
    """
    run, base = folder / "run", folder / "base"
    shutil.copytree(TINY_BASE, base, ignore=shutil.ignore_patterns(PRACTICE))
    settings = SMALL | {"model_name_or_path": base, "max_steps": 2, "output_dir": run}
    small = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    train = ("run_r1_grpo.py", "--config", str(TINY_RECIPE), *small, *more)
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
        command = [sys.executable, __file__, str(folder)]
        started = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    statuses = {IMPORTS: started.returncode}
    if (folder / "statuses.json").exists():
        statuses |= json.loads((folder / "statuses.json").read_text(encoding="utf-8"))
    return {name: Said(status, *_printed(folder, name)) for name, status in statuses.items()}


def _printed(folder: Path, name: str) -> tuple[str, str]:
    out, err = ((folder / f"{name}.{end}").read_text(encoding="utf-8", errors="replace") for end in ("out", "err"))
    return out, err


# --- the process that imports, and its forks -----------------------------------------------------------------------


def _take(steps: list[Step], folder: Path) -> None:
    for library in LIBRARIES:
        with contextlib.suppress(BaseException):  # the script will meet the same, and has to say it in words
            __import__(library)
    sys.stdout.flush()
    sys.stderr.flush()
    statuses = {}
    for step in steps:
        child = os.fork()
        if child == 0:
            _become(step, folder)
        statuses[step.name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (folder / "statuses.json").write_text(json.dumps(statuses), encoding="utf-8")


def _become(step: Step, folder: Path) -> None:
    """Run the script as Python itself would, and end."""
    out, err = (os.open(folder / f"{step.name}.{end}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for end in ("out", "err"))
    os.dup2(err, 2)
    if step.output == "kept":
        os.dup2(out, 1)
    elif step.output == "closed":
        os.close(1)
        sys.stdout = None  # as Python has it then
    else:
        reader = subprocess.Popen(["head", "-1"], stdin=subprocess.PIPE, stdout=out)
        assert reader.stdin is not None
        os.dup2(reader.stdin.fileno(), 1)
        reader.stdin.close()
    os.close(out)
    os.close(err)
    status = 0
    script = ROOT / "scripts" / step.words[0]
    sys.argv = [str(script), *(os.fsdecode(word.encode()) for word in step.words[1:])]  # as the locale has them
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    _take([Step(**kept) for kept in json.loads((place / "steps.json").read_text(encoding="utf-8"))], place)
