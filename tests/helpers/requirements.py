"""What a test needs beyond Python: it is skipped where that is missing, or fails where nothing may be skipped."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE_ALL = "MINI_R1_REQUIRE_ALL"
SMALL_MODEL = Path(__file__).parents[2] / "models" / "smollm2-135m"


def require_program(name: str, package: str | None = None, path: str | None = None) -> str:
    """Return where a program is; without one skip the test, or fail it if MINI_R1_REQUIRE_ALL is 1.

    Args:
        package: the Debian package that has it, if its name is another.
        path: where to look instead of PATH.
    """
    found = shutil.which(name, path=path)
    if found is None:
        skip_or_fail(f"no program {name!r} on PATH: install it (Debian, Ubuntu: apt-get install {package or name})")
    return found


def require_module(name: str, install: str) -> None:
    """Skip the test without a Python module, or fail it if MINI_R1_REQUIRE_ALL is 1; `install` is what brings it."""
    if importlib.util.find_spec(name) is None:
        skip_or_fail(f"no Python module {name!r}: {install}")


def require_small_model() -> str:
    """The folder of the pretrained chat model; without it skip the test, or fail it if MINI_R1_REQUIRE_ALL is 1."""
    if not (SMALL_MODEL / "config.json").is_file():
        skip_or_fail("no models/smollm2-135m: python scripts/get_small_model.py")
    return str(SMALL_MODEL)


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test for a reason, or fail it if MINI_R1_REQUIRE_ALL is 1."""
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{reason}; {REQUIRE_ALL}=1 forbids to skip")
    pytest.skip(reason)
