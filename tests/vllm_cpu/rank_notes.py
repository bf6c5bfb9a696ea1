"""Makes every training process say at its end who it was, as a file in the folder RANKS_FOLDER, if that is set."""

import atexit
import os
import socket
from pathlib import Path
from typing import Any


def note_at_exit(accelerate_state: Any) -> None:
    """Leave `RANK-of-WORLD-local-LOCAL-at-HOST`: what accelerate found, not what the environment promised."""

    def note() -> None:
        state = accelerate_state.PartialState._shared_state
        if state:
            ranks = f"{state['process_index']}-of-{state['num_processes']}-local-{state['local_process_index']}"
            Path(os.environ["RANKS_FOLDER"], f"{ranks}-at-{socket.gethostname()}").touch()

    if "RANKS_FOLDER" in os.environ and "LOCAL_RANK" in os.environ:
        atexit.register(note)
