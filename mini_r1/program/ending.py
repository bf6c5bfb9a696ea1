"""The last moment of a process of several: it ends before Python takes itself apart.

The threads with which gloo moves tensors give each back to Python when they are done with it, which may be after the
collective has returned. One that does so while the interpreter is being finalized is killed, and takes the process
with it: SIGABRT, "terminate called without an active exception", after a run that has succeeded (pytorch#179291).
torch.distributed.destroy_process_group does not wait for them as long as a trainer, or DeepSpeed, refers to the group.
"""

import atexit
import os
import sys
from contextlib import suppress

_status: int | None = None


def ends_with(code: "int | str | None") -> None:
    """Say what the program's exit status will be, the code of its SystemExit; without this, nothing is skipped."""
    global _status
    _status = code if isinstance(code, int) else int(code is not None)


def _skip_finalization() -> None:
    distributed = sys.modules.get("torch.distributed")
    if _status is None or not distributed or not distributed.is_available() or not distributed.is_initialized():
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(_status)


atexit.register(_skip_finalization)  # while nothing else is imported: the first one registered runs last
