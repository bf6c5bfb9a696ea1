"""What the programs of the cluster script share that run in the host's own Python, outside a job's container.

That Python may be as old as 3.6 (RHEL 8, SLES 15), so submit.py, job.py and what they import use nothing newer, and
only the standard library. What needs Mini-R1 is a program of its own, which they run in the job's Python.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, NoReturn, Optional, Sequence


class Site:
    """What the function `site` of the script has chosen.

    Attributes:
        script: the path of the batch script.
        python: the words that call the job's Python.
        srun_options: more options of srun, such as those of a container.
        elsewhere: whether that is another Python than this folder's or python3, or in a container.
    """

    def __init__(self, script: str, python: "list[str]", srun_options: "list[str]") -> None:
        self.script, self.python, self.srun_options = script, python, srun_options
        usual = ".venv/bin/python" if os.access(".venv/bin/python", os.X_OK) else "python3"
        self.elsewhere = python != [usual] or bool(srun_options)


def read_site(words: "Sequence[str]") -> "tuple[Site, list[str]]":
    """The words with which the script calls its programs: the site's (two lists with their lengths), the user's."""
    script, *words = words
    lists = []
    for _ in range(2):
        count = int(words[0])
        lists.append(list(words[1 : 1 + count]))
        words = words[1 + count :]
    python, srun_options = lists
    return Site(script, python, srun_options), list(words)


def use_this_code() -> None:
    """Let the code of this folder be what runs, installed or not."""
    given = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path.cwd()) + (f":{given}" if given else "")


def die(message: str) -> NoReturn:
    """End the program with the line `error: MESSAGE` and status 2."""
    tell(f"error: {message}")
    sys.exit(2)


def tell(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a line with the time; a handler of a signal may, too, since nothing is buffered."""
    os.write(1, os.fsencode(f"{time.strftime('%H:%M:%S')} {text}\n"))


def status_of(code: int) -> int:
    """A child's exit status as a shell has it: above 128 after a signal."""
    return code if code >= 0 else 128 - code


def call(command: "Sequence[str]", stderr: "Optional[int]" = None) -> "tuple[int, str]":
    """Run a command; return its status and what it printed on stdout; its stderr is this program's if not given."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, universal_newlines=True)
    except OSError as error:
        reason = f"{command[0]}: {error.strerror}"
        if stderr is None:
            tell(reason)
        return 127, reason
    return status_of(done.returncode), done.stdout.rstrip("\n")


def program(main: "Callable[[Sequence[str]], None]") -> None:
    """Run a main with the command line; Ctrl-C and a reader that has seen enough are no tracebacks."""
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own last flush
        sys.exit(141)
