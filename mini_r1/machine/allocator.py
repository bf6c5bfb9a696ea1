"""Memory of a process that trains on a CPU, as the C library hands it out."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep memory that is freed for what is allocated next, instead of giving it back to the system.

    It maps each large tensor anew, and the system clears each of its pages again: a third of a step of a model with a
    large vocabulary. Settings of the user's (MALLOC_... or GLIBC_TUNABLES) stay; other C libraries are left alone.
    """
    theirs = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if theirs or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
