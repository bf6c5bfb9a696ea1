"""Ctrl-C and SIGTERM end a run at the next step boundary, with a checkpoint, instead of in the middle of one."""

import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# A scheduler that stops a job counts on 0 for "ended in order"; a shell expects 128 + 2 after Ctrl-C.
EXIT_STATUS = {signal.SIGTERM: 0, signal.SIGINT: 130}


class StopOnSignal(TrainerCallback):
    """Saves and stops after the running step once a signal has come; a second Ctrl-C stops at once.

    `received` is the signal, or None while there was none. Install with `install()` in the main thread.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def install(self) -> None:
        """Take over Ctrl-C and SIGTERM."""
        for number in EXIT_STATUS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        print(f"\n{self.received.name}: saving a checkpoint after this step (once more to stop at once)", flush=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask the trainer for a checkpoint and the end."""
        if self.received is not None:
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True
        return control
