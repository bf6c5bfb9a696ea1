"""Tests only: on PYTHONPATH, makes every training process leave a file that says who it was, from inside.

The folder RANKS_FOLDER gets `RANK-of-WORLD-local-LOCAL-at-HOST`.
"""

import atexit
import importlib.machinery
import importlib.util
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


def run_next_one() -> None:
    """Python runs one sitecustomize only: run the next on the path, that of tests/vllm_cpu."""
    others = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).parent.resolve()]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if "LOCAL_RANK" in os.environ and "RANKS_FOLDER" in os.environ:
    atexit.register(note_rank)
run_next_one()
