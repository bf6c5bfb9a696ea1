"""Ctrl-C and SIGTERM end long work at the next step boundary, with a checkpoint, instead of in the middle of one."""

import signal
import time
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# A scheduler that stops a job counts on 0 for "ended in order"; a shell expects 128 + 2 after Ctrl-C.
EXIT_STATUS = {signal.SIGTERM: 0, signal.SIGINT: 130}
# A scheduler signals launcher and processes alike, and the launcher passes its own on: both are one request.
ECHO_SECONDS = 3.0


class StopRequest:
    """Remembers that Ctrl-C or SIGTERM has come; a second one, not right after it, interrupts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.received_at = 0.0

    def install(self) -> "StopRequest":
        """Take over both signals in this process (main thread only)."""
        for number in EXIT_STATUS:
            signal.signal(number, self._note)
        return self

    @property
    def exit_status(self) -> int:
        """What to exit with: 0 if nothing came."""
        return EXIT_STATUS[self.received] if self.received is not None else 0

    def agreed(self, args: TrainingArguments) -> bool:
        """Whether a request has come to any process; all must call this, and all get the same answer and status.

        A process that stopped alone would leave the others waiting for it in their next step.
        """
        if args.world_size > 1:
            number = torch.tensor(self.received or 0, device=args.device)
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
            if not number:
                return False  # what has come since is for the next time
            self.received = signal.Signals(int(number))
        return self.received is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if time.monotonic() - self.received_at < ECHO_SECONDS:
                return
            raise KeyboardInterrupt
        self.received, self.received_at = signal.Signals(number), time.monotonic()
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
        if self.request.agreed(args):
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True
        return control
