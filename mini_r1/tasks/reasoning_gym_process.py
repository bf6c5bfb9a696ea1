"""Runs the package reasoning-gym in a process of its own, where nothing that a model writes can do harm.

Some of its scorers hand the answer to `eval` or to sympy, which does the same: an answer could run a program, take all
memory or never end. And some of its generators draw from the one random state of a process, which is the trainer's.
So the package is only imported here (`python -m mini_r1.tasks.reasoning_gym_process`). `ReasoningGymProcess` starts
this program, asks it in JSON lines, and kills it where an answer takes too long.
"""

import ast
import contextlib
import importlib
import json
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

SECONDS_TO_START, SECONDS_TO_SCORE = 120.0, 5.0
MAX_MEMORY = 4 * 2**30  # bytes
# Their scorers `eval` an answer that is to be a list; `literal_eval` reads the same lists and nothing else.
EVALUATING = (
    "algorithmic.string_insertion",
    "algorithmic.spiral_matrix",
    "algorithmic.binary_matrix",
    "games.n_queens",
)
READING = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "signal.", "pty.", "tempfile.")


class ReasoningGymError(Exception):
    """What the package says of a name or a configuration; or that it is not installed."""


class StoppedError(Exception):
    """The process ended or was killed before it answered."""


# --- this side: the run ----------------------------------------------------------------------------------------------


class ReasoningGymProcess:
    """The other process, started when it is first asked, and again after it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def call(self, function: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Call one of `FUNCTIONS` there.

        Args:
            function: its name.
            arguments: what JSON can hold.
            seconds: how long it may take; by default as long as it likes.

        Raises:
            ReasoningGymError: the package refuses the arguments.
            StoppedError: it took too long, or the process died of it.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _start()
                self._exchange(["ready"], SECONDS_TO_START)
            answer = self._exchange([function, *arguments], seconds)
        if "error" in answer:
            raise ReasoningGymError(answer["error"])
        return answer["result"]

    def _exchange(self, request: list[Any], seconds: float | None) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        timer = threading.Timer(seconds or threading.TIMEOUT_MAX, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            process.kill()
            process.wait()
            raise StoppedError
        return dict(json.loads(line))


def _start() -> subprocess.Popen[bytes]:
    """Start this module as a program that finds what this process finds, and iterates over sets in the same order."""
    settings = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __spec__.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | settings,
    )
    weakref.finalize(process, process.kill)  # else it would end by itself, with its input
    return process


@cache
def reasoning_gym_process() -> ReasoningGymProcess:
    """The one that all tasks of this process share."""
    return ReasoningGymProcess()


# --- the other side --------------------------------------------------------------------------------------------------


def names() -> list[str]:
    """The names of all data sets."""
    return sorted(_factory().DATASETS)


def settings(name: str) -> list[str]:
    """What a data set can be configured with, but for size and seed, which are a run's own."""
    return [field.name for field in fields(_factory().DATASETS[name][1]) if field.name not in ("size", "seed")]


def make(name: str, config: Mapping[str, Any], size: int, seed: int, first: int, end: int) -> list[dict[str, Any]]:
    """Make the problems from `first` up to `end` of `size`; the same arguments give the same ones."""
    data = _create(name, config, size, seed)
    made = []
    for index in range(first, end):
        _seed(seed + index)  # of the generators that don't use their own
        made.append(_as_row(data[index]))
    return made


def score(name: str, config: Mapping[str, Any], row: Mapping[str, Any], answer: str) -> float:
    """What the data set's own scorer gives an answer; 0 where it fails on it."""
    entry = dict(row) | {"metadata": _with_tuples(json.loads(row["metadata"]))}
    scorer = _create(name, config, 1, 0)
    try:
        return float(scorer.score_answer(answer, entry))
    except BaseException:  # of any kind: the text is a model's
        return 0.0


FUNCTIONS: dict[str, Callable[..., Any]] = {"names": names, "settings": settings, "make": make, "score": score}


@cache
def _factory() -> Any:
    try:
        factory = importlib.import_module("reasoning_gym.factory")
    except ImportError as error:
        raise ReasoningGymError(f"the package reasoning-gym can't be imported: {error}") from error
    for module in EVALUATING:
        importlib.import_module(f"reasoning_gym.{module}").__dict__["eval"] = ast.literal_eval
    return factory


_created: dict[str, Any] = {}


def _create(name: str, config: Mapping[str, Any], size: int, seed: int) -> Any:
    key = json.dumps([name, config, size, seed])
    if key not in _created:
        _seed(seed)
        _created[key] = _factory().create_dataset(name, size=size, seed=seed, **config)
    return _created[key]


def _seed(seed: int) -> None:
    random.seed(seed)
    importlib.import_module("numpy").random.seed(seed % 2**32)


def _as_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as a row of text, which any data set can hold."""
    metadata = json.dumps(_without_tuples(entry["metadata"]), default=str, ensure_ascii=False)
    return {"question": str(entry["question"]), "answer": entry.get("answer"), "metadata": metadata}


def _without_tuples(value: Any) -> Any:
    """JSON has no tuples, and some scorers compare them."""
    if isinstance(value, tuple):
        return {"tuple": [_without_tuples(item) for item in value]}
    if isinstance(value, list):
        return [_without_tuples(item) for item in value]
    if isinstance(value, dict):
        return {key if isinstance(key, str | int) else str(key): _without_tuples(item) for key, item in value.items()}
    return value


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_tuples(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"tuple"}:
            return tuple(_with_tuples(item) for item in value["tuple"])
        return {key: _with_tuples(item) for key, item in value.items()}
    return value


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: whoever computes needs no other programs, no network, and files only to read."""
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writes = (
            any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
        )
        if writes:
            raise PermissionError(f"{arguments[0]!r} is not to be written")
    elif event.startswith(FORBIDDEN) and event not in READING:
        raise PermissionError(f"{event} is not allowed here")


def _answers(requests: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in requests:
        function, *arguments = json.loads(line)
        if function == "ready":
            yield {"result": True}
            continue
        try:
            yield {"result": FUNCTIONS[function](*arguments)}
        except BaseException as error:
            yield {"error": " ".join(str(error).split()) or type(error).__name__}


def main() -> None:
    """Answer requests from the standard input until it ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # some data sets print
    with contextlib.suppress(ImportError, OSError, ValueError):  # not everywhere
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    with contextlib.suppress(ReasoningGymError):  # who asks is told
        _factory()
    sys.addaudithook(_forbid)
    for answer in _answers(iter(requests)):
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which still has to judge its last step
    main()
