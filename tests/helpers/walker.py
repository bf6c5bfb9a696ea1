"""The process behind `walk`: imports the libraries, and takes each step as a fork of itself.

Importing takes ten times as long as what the small commands do. A fork finds nothing changed but what the libraries'
own import changes.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mini_r1.program.quiet import silence_the_meaningless

SCRIPTS = Path(__file__).parents[2] / "scripts"
LIBRARIES = "torch", "transformers", "datasets", "peft", "trl", "trl.trainer.grpo_trainer", "tensorboard"


@dataclass(frozen=True)
class Step:
    """A command of a walk.

    Attributes:
        name: what it is called in the result.
        words: the script's name and its arguments.
        output: where its stdout goes; "head" is a reader that leaves after one line.
        folder: where it is run, if not where the walk is.
    """

    name: str
    words: tuple[str, ...]
    output: Literal["kept", "closed", "head"] = "kept"
    folder: str = ""


def _take(steps: list[Step], folder: Path) -> None:
    silence_the_meaningless()  # as `in_words` does before a program's imports
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
        sys.stdout = open(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)  # noqa: SIM115
    os.close(out)
    os.close(err)
    if step.folder:
        os.chdir(step.folder)
    status = 0
    script = SCRIPTS / step.words[0]
    sys.argv = [str(script), *(os.fsdecode(word.encode()) for word in step.words[1:])]  # as the locale has them
    sys.orig_argv = [sys.executable, *sys.argv]
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
