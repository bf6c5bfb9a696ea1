"""Ctrl-C and SIGTERM end long work at the next step boundary, with a checkpoint, instead of in the middle of one."""

import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# A scheduler that stops a job counts on 0 for "ended in order"; a shell expects 128 + 2 after Ctrl-C.
EXIT_STATUS = {signal.SIGTERM: 0, signal.SIGINT: 130}


class StopRequest:
    """Remembers that Ctrl-C or SIGTERM has come; a second one interrupts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def install(self) -> "StopRequest":
        """Take over both signals in this process (main thread only)."""
        for number in EXIT_STATUS:
            signal.signal(number, self._note)
        return self

    @property
    def exit_status(self) -> int:
        """What to exit with: 0 if nothing came."""
        return EXIT_STATUS[self.received] if self.received is not None else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        print(f"\n{self.received.name}: saving a checkpoint after this step (once more to stop at once)", flush=True)


def leave_signals_to_parent(worker: int) -> None:
    """For DataLoader workers, which a signal to the whole group reaches too: the parent ends them in order.

    `worker` is their number.
    """
    for number in EXIT_STATUS:
        signal.signal(number, signal.SIG_IGN)


class StopOnRequest(TrainerCallback):
    """Makes a Trainer save a checkpoint and stop after the step in which the request came."""

    def __init__(self, request: StopRequest) -> None:
        self.request = request

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask the trainer for a checkpoint and the end."""
        if self.request.received is not None:
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True
        return control
