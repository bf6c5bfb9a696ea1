"""The lock of a run's folder: who has it is said, and where there are no locks the run goes on without."""

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from mini_r1.runs.lock import LOCK, LockedError, check_unlocked, run_lock


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As a file system does that has no locks, or a broken one."""

    def refuse(file: object, kind: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_the_file_names_the_last_holder_alone(tmp_path: Path) -> None:
    """In a folder that is made for it, with those above it."""
    folder = tmp_path / "not" / "there"
    for _ in range(2):
        with run_lock(folder):
            pass
    (line,) = (folder / LOCK).read_text(encoding="utf-8").splitlines()
    assert line.startswith(f"process {os.getpid()} on ")


def test_both_refuse_what_another_holds_at_once_and_name_it(tmp_path: Path) -> None:
    """Opened twice, a file has two locks, in one process too. Neither waits, and a refused one leaves the name."""
    for _ in range(2):
        with run_lock(tmp_path):
            with pytest.raises(LockedError, match=f"another run uses it \\(process {os.getpid()} on "):
                check_unlocked(tmp_path)
            with (
                pytest.raises(LockedError, match=f"another run uses it \\(process {os.getpid()} on "),
                run_lock(tmp_path),
            ):
                pass
        check_unlocked(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_used(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_locks(monkeypatch, number)
    with caplog.at_level(logging.WARNING), run_lock(tmp_path):
        assert "this file system has no locks" in caplog.text


def test_any_other_failure_of_a_lock_is_not_taken_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"), run_lock(tmp_path):
        pass
