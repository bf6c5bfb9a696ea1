"""Exceptions as the libraries really raise them, and what a person is told."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import load_file

from mini_r1.program.causes import CAUSES, DISK_FULL, NON_FINITE, explain, one_line
from mini_r1.program.problems import Problem, UserError


def raised(action: Callable[[], Any]) -> BaseException:
    """What an action raises."""
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def sample_nan() -> None:
    torch.multinomial(torch.tensor([[float("nan"), 1.0]]), 1)


def wrapped(inner: BaseException, outer: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: torch.empty(2**50), "this machine's memory is used up"),
        (lambda: bytearray(2**62), "this machine's memory is used up"),
        (sample_nan, "not finite numbers"),
        (lambda: json.dumps(float("nan"), allow_nan=False), "not finite numbers"),
        (lambda: httpx.get("http://127.0.0.1:1"), "the network can't be reached"),
        (lambda: requests.get("http://127.0.0.1:1"), "the network can't be reached"),
        (lambda: httpx.Client(proxy="socks5://127.0.0.1:1"), "SOCKS proxy"),
        (lambda: httpx.Client(proxy="gopher://127.0.0.1:1"), "proxy or Hub address is not usable"),
        (lambda: httpx.get("nonsense"), "proxy or Hub address is not usable"),
        (lambda: __import__("bitsandbytes.nn.no_such"), "the Python package bitsandbytes is missing"),
        (lambda: Path("/no/such/file").read_text(encoding="utf-8"), "a file or folder is missing"),
        (lambda: Path("/").write_text("x", encoding="utf-8"), "/ can't be used"),
        (lambda: b"\xff".decode(), "not UTF-8"),
    ],
)  # fmt: skip
def test_what_libraries_raise_is_known(action: Callable[[], Any], words: str) -> None:
    error = raised(action)
    explained = explain(error)
    assert explained is not None, repr(error)
    assert words in explained
    assert "Fix: " in explained
    assert "\n" not in explained


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "halve per_device_train"),
        (OSError(errno.ENOSPC, "No space left on device"), "full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "full"),
        (Exception("Error while serializing: I/O error: Disk quota exceeded (os error 122)"), "full"),
        (Exception("Error while serializing: IoError(Os { code: 122, kind: FilesystemQuotaExceeded })"), "full"),
        (wrapped(OSError(errno.EDQUOT, "Disk quota exceeded"), RuntimeError("saving failed")), "full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y can't be used: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "/x/y can't be used: Read-only file system"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OfflineModeIsEnabled("Cannot reach x: offline mode is enabled."), "HF_HUB_OFFLINE is set"),
        (DeprecationWarning("old"), "PYTHONWARNINGS"),
        (RuntimeError("CUDA error: device-side assert triggered"), "the GPU or its driver refuses"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]"), "lost each other"),
        (wrapped(UserError("ours. Fix: it"), RuntimeError("theirs")), "ours. Fix: it"),
    ],
)
def test_what_can_not_be_provoked_here_is_known_too(error: BaseException, words: str) -> None:
    assert words in str(explain(error))


def test_a_damaged_file_of_weights_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    assert "damaged or cut off" in str(explain(raised(lambda: load_file(tmp_path / "model.safetensors"))))


def test_what_an_exception_came_from_says_why() -> None:
    """As for a model that can't be downloaded: the last exception has neither a number nor a telling type."""
    error = wrapped(LocalEntryNotFoundError("no such entry"), OSError("We couldn't connect to the Hub"))
    assert "the network can't be reached" in str(explain(error))


def test_an_unknown_exception_is_none_and_its_line_is_short() -> None:
    error = AttributeError("'X' object has no attribute 'y'\n" + "z" * 1000)
    assert explain(error) is None
    assert len(one_line(error)) < 450
    assert one_line(RuntimeError()) == "RuntimeError"


def test_every_sentence_can_be_filled_in() -> None:
    """A placeholder that nobody fills would itself be a traceback."""
    names = dict.fromkeys(("text", "file", "reason", "module", "package"), "x")
    assert all("{" not in cause.words.format_map(names) for cause in CAUSES)


def test_a_full_disk_is_known_by_number_and_by_words() -> None:
    assert DISK_FULL.caused(wrapped(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("x")))
    assert DISK_FULL.caused(
        RuntimeError("[enforce fail at inline_container.cc:664] PytorchStreamWriter failed writing")
    )
    assert not DISK_FULL.caused(PermissionError(13, "Permission denied"))
    assert not DISK_FULL.caused(RuntimeError("CUDA out of memory"))


def test_broken_probabilities_are_known() -> None:
    assert NON_FINITE.caused(wrapped(raised(sample_nan), RuntimeError("x")))
    assert not NON_FINITE.caused(RuntimeError(str(Problem("x", 1, "2", "3"))))
