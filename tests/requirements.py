"""What a test needs beyond Python: it is skipped where that is missing, or fails where nothing may be skipped."""

import os
import shutil

import pytest

REQUIRE_ALL = "MINI_R1_REQUIRE_ALL"


def require_program(name: str) -> str:
    """Return the path of a program on PATH; without one skip the test, or fail it if MINI_R1_REQUIRE_ALL is 1."""
    if path := shutil.which(name):
        return path
    reason = f"no program {name!r} on PATH: install it (Debian, Ubuntu: apt-get install {name})"
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{reason}; {REQUIRE_ALL}=1 forbids to skip")
    pytest.skip(reason)
