"""The one place where exceptions become words: every program of this project runs inside `in_words`.

Whatever ends a program ends in one last line, `error: CAUSE AND FIX`, never in a traceback: with status 2 before a
run's first step, with status 1 after it, the traceback then in error.log in the run's folder. Ctrl-C is the line
`interrupted` and status 130. Imports nothing heavy, so that it is there while the rest of a program is still loading.
"""

import codecs
import contextlib
import hashlib
import io
import locale
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from mini_r1.program.causes import LOST, chain, describe, explain
from mini_r1.program.ending import ends_with
from mini_r1.program.quiet import silence_the_meaningless
from mini_r1.program.redact import protect_logs, redact

LOG = "error.log"
BEFORE, AFTER, INTERRUPTED, NO_READER = 2, 1, 130, 141  # exit statuses; the last two as a shell has them
STORE_SECONDS = 5  # for the launcher's store, where processes agree on who speaks


class _Run:
    """What a failure has to know of the run under way; a new program begins with these values.

    Attributes:
        folder: where the traceback goes, once it is known.
        begun: whether the first step has begun.
        interrupted: whether Ctrl-C has come, which libraries may swallow or turn into an error of their own.
    """

    folder: Path | None = None
    begun = False
    interrupted = False


_run = _Run()


def output_is(folder: Path) -> None:
    """Say where the traceback of a failure goes from now on."""
    _run.folder = folder


def work_begins() -> None:
    """Say that the first step begins: a failure from now on costs work, and has another status."""
    _run.begun = True


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """End the program with one line and the right status, whatever is raised inside.

    Wrap the imports of a script in it, and the call of its main:

        with in_words():
            import torch
        ...
        with in_words():
            sys.exit(main())

    Raises:
        SystemExit: with the status.
    """
    _use_utf8()
    vars(_run).clear()  # what an earlier program in this process has left
    _prepare_streams()
    protect_logs()
    silence_the_meaningless()
    try:
        with _noting_interrupts():
            try:
                yield
            finally:
                sys.stdout.flush()
        if _run.interrupted:
            raise KeyboardInterrupt
    except SystemExit as end:
        _end_with(end.code)
        raise
    except BaseException as error:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # impatience from here on is no traceback either
        status = tell(error)
        _end_with(status)
        raise SystemExit(status) from None


def _end_with(code: int | str | None) -> None:
    if _is_program():
        ends_with(code)


def _is_program() -> bool:
    """Whether the program began with importing `in_words`; not so a notebook, or a test, that calls it."""
    return getattr(sys.modules["__main__"], "in_words", None) is in_words


@contextlib.contextmanager
def _noting_interrupts() -> Iterator[None]:
    """Remember a Ctrl-C, unless somebody else sees to it."""

    def note(number: int, frame: FrameType | None) -> None:
        _run.interrupted = True
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)


def tell(error: BaseException) -> int:
    """Print the last line for an exception, on the process that is to speak, and return the exit status."""
    if _run.interrupted or any(isinstance(one, KeyboardInterrupt) for one in chain(error)):
        say("interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError) and not _run.begun:  # the reader, such as `head`, has seen enough
        with contextlib.suppress(Exception):
            write_nowhere(sys.stdout.fileno())
        return NO_READER
    text = describe(error)
    who = _speaker(text)
    if who is not None:
        log = _write_traceback(error) if _run.begun or explain(error) is None else None
        first, *details = text.strip().splitlines() or ["no reason given"]
        # The first line says what happened, and so has to be the last one on the screen.
        say(*details, f"{as_error(first, who)}{f' (full traceback: {log})' if log else ''}")
    return AFTER if _run.begun else BEFORE


def as_error(text: object, who: str = "") -> str:
    """The line that a program ends in; it says "error:" once, also where a library's message begins so itself.

    >>> as_error("Error: no such file")
    'error: no such file'
    """
    message = re.sub(r"\A(\s*error:\s*)+", "", str(text), flags=re.IGNORECASE)
    return f"error: {who}{message}"


def say(*lines: str) -> None:
    """Print lines on stderr, below any progress bar; never fails, and never shows a token."""
    with contextlib.suppress(Exception):
        _close_bars()
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        for line in lines:
            print(redact(line), file=sys.stderr, flush=True)


def _write_traceback(error: BaseException) -> Path | None:
    """Write the whole traceback, without tokens, in the run's folder or, failing that, the temporary one."""
    rank = os.environ.get("RANK", "0")
    name = LOG if rank == "0" else f"error-{rank}.log"
    text = redact("".join(traceback.format_exception(error)))
    temporary = Path(tempfile.gettempdir()) / f"mini-r1-{os.getpid()}-{name}"
    for path in (_run.folder / name if _run.folder else temporary, temporary):
        with contextlib.suppress(OSError):
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return path
    return None


# --- several processes ---------------------------------------------------------------------------------------------


def _speaker(text: str) -> str | None:
    """What to put before a message so that it is clear whose it is; None if another process has said it already.

    The processes agree through the store that `torchrun` and `accelerate launch` keep for them: the first one to have
    something to say says it. That the others then lose their connection to it goes without saying.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ""
    with contextlib.suppress(Exception):  # no store, or no launcher any more
        if store := launcher_store(timedelta(seconds=STORE_SECONDS)):
            spoken = int(store.add("mini_r1/spoken", 0))
            key = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()
            first = int(store.add(f"mini_r1/said/{key}", 1)) == 1
            if not first or (spoken and text.startswith(LOST)):
                return None
            store.add("mini_r1/spoken", 1)
            return ""
    return f"process {os.environ.get('RANK', '?')}: "


def launcher_store(timeout: timedelta) -> Any:
    """The store that `torchrun` and `accelerate launch` keep for their workers; None if this launcher keeps none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=timeout))
    return store


# --- streams -------------------------------------------------------------------------------------------------------


def _use_utf8() -> None:
    """Start the program again in Python's UTF-8 mode if the locale is of another encoding.

    Libraries read their own files in the locale's, and a path that it can't name can't be written down either.
    """
    is_utf8 = sys.flags.utf8_mode or codecs.lookup(locale.getencoding()).name == "utf-8"
    if is_utf8 or not _is_program() or sys.platform == "win32":  # where a process can't become another
        return
    os.environ["PYTHONUTF8"] = "1"  # for what the program starts, too
    os.environ.setdefault("PYTHONIOENCODING", f"{getattr(sys.stdout, 'encoding', None) or 'ascii'}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _prepare_streams() -> None:
    """Let everything be printed: whatever the locale can't show as an escape, and with a closed stream nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (as long as the program)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_nowhere(*streams: int) -> None:
    """Let what is still written to these file descriptors go nowhere, where each write would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _close_bars() -> None:
    """Close the progress bars that a failure has left open, so that what follows starts on a line of its own."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()
