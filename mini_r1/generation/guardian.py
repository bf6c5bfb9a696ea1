"""Runs one command for a parent process, and ends the command when the parent dies, for whatever reason.

Called as `python -I guardian.py PID COMMAND`. A trainer that is killed with SIGKILL can't stop its generation server,
and a server without a trainer holds a GPU for ever. This process outlives the trainer by a second: it sees that its
parent has changed, and ends the whole group of the command. It imports nothing heavy, and lives in a session of its
own, so that Ctrl-C reaches the trainer alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL; after a failed rendezvous vLLM ignores the first


def guard(parent: int, command: Sequence[str]) -> int:
    """Run `command` in a process group of its own until it ends, `parent` is gone, or SIGTERM comes.

    Returns:
        the command's exit status, negative for a signal, as `subprocess` has it.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not asked and os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    end_group(process)
    return process.returncode


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started: SIGTERM, and SIGKILL for what is left after `GRACE_SECONDS`."""
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(abs(guard(int(sys.argv[1]), sys.argv[2:])))
