"""Memory that a run on a CPU frees stays its own; what a user has set stays set."""

import os
import platform
import subprocess
import sys

import pytest

from conftest import ROOT

# Prints whether the memory of 64 MB that are freed is still the process's own.
PROGRAM = """
import ctypes, os
from pathlib import Path
from mini_r1.machine.allocator import keep_freed_memory

keep_freed_memory()
libc, size = ctypes.CDLL(None), 64 << 20
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
memory = libc.malloc(size)
ctypes.memset(memory, 1, size)
libc.free(memory)
resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
print(resident > size)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(
    ("setting", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "2"}, False), ({"GLIBC_TUNABLES": ""}, False)]
)
def test_freed_memory_is_kept_unless_the_user_has_set_something(setting: dict[str, str], kept: bool) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=plain | {"PYTHONPATH": str(ROOT)} | setting,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == f"{kept}\n"
