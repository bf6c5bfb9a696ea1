"""One run at a time in a folder: a lock that the operating system frees when its process ends, however it ends."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from mini_r1.program.problems import Problem, ProblemError

logger = logging.getLogger(__name__)

LOCK = ".run.lock"
NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system


class LockedError(ProblemError):
    """Another process is running in this folder; the message names it."""


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep a run's folder for this process; its file stays, and says who has it or had it last.

    Raises:
        LockedError: if another process has it.
        ProblemError: if the folder can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        cause = f"it can't be written ({error.strerror})"
        raise ProblemError(Problem("output_dir", folder, "a folder to write to", "name another one", cause)) from error
    with file:
        if not _try(file, fcntl.LOCK_EX):
            raise _locked(folder, file)
        file.truncate(0)
        since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
        file.flush()
        yield


def check_unlocked(folder: Path) -> None:
    """Find out whether another process is running in a folder, without leaving a trace.

    Raises:
        LockedError: if so.
    """
    try:
        with (folder / LOCK).open(encoding="utf-8") as file:
            if not _try(file, fcntl.LOCK_SH):
                raise _locked(folder, file)
    except OSError:  # no such file, or one of somebody else: `run_lock` will tell
        return


def _try(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        logger.warning("%s: this file system has no locks, so a second run there would not be noticed", file.name)
    return True


def _locked(folder: Path, file: TextIO) -> LockedError:
    file.seek(0)
    holder = file.read().strip() or "a process that has only begun"
    fix = "wait until it ends, stop it, or set another output_dir"
    return LockedError(
        Problem("output_dir", folder, "a folder of this run alone", fix, f"another run uses it ({holder})")
    )
