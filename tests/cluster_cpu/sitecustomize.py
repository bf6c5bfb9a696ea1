"""Tests only: on PYTHONPATH, makes every training process leave a file that says who it was, from inside.

RANKS_FOLDER gets `RANK-of-WORLD-at-HOST-local-LOCAL`. FAIL_RANK names the rank that raises at its second step.
"""

import atexit
import os
import socket
import sys
from pathlib import Path


def note_rank() -> None:
    """Write what accelerate knows, once training is over: not what the environment promised."""
    accelerate = sys.modules.get("accelerate.state")
    state = accelerate.PartialState._shared_state if accelerate else {}
    if state:
        ranks = f"{state['process_index']}-of-{state['num_processes']}-local-{state['local_process_index']}"
        Path(os.environ["RANKS_FOLDER"], f"{ranks}-at-{socket.gethostname()}").touch()


if "LOCAL_RANK" in os.environ and "RANKS_FOLDER" in os.environ:
    atexit.register(note_rank)
