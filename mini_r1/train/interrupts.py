"""Ctrl-C, SIGTERM and SIGHUP end long work cleanly, with a checkpoint, instead of in the middle of something.

A step is finished first; an evaluation is left at its next batch, on one process at the next token. Before the first
step, where nothing can be lost, they end the program at once.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mini_r1.program.failures import say, work_begins, write_nowhere

# A scheduler that stops a job counts on 0 for "ended in order"; a shell expects 128 + 2 after Ctrl-C. SIGHUP comes when
# the terminal is closed or its connection drops.
EXIT_STATUS = {signal.SIGTERM: 0, signal.SIGHUP: 0, signal.SIGINT: 130}
# A scheduler signals launcher and processes alike, and the launcher passes its own on: both are one request.
ECHO_SECONDS = 3.0


class StopRequest:
    """Remembers that a signal has come; a second one, not right after it, interrupts at once.

    Attributes:
        at_once: whether already the first one interrupts.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.received: signal.Signals | None = None
        self.received_at = 0.0
        # A launcher that is killed outright passes nothing on, and its workers would train on unseen.
        self.launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def install(self) -> "StopRequest":
        """Take over the signals in this process (main thread only), but for a SIGHUP that `nohup` has it ignore."""
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        for number in EXIT_STATUS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
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
        if self.launcher is not None and os.getppid() != self.launcher and self.received is None:
            self.received = signal.SIGTERM
        number = highest(self.received or 0, args)
        if number:  # what has come since is for the next time
            self.received = signal.Signals(number)
        return bool(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if time.monotonic() - self.received_at < ECHO_SECONDS:
                return
            raise KeyboardInterrupt
        self.received, self.received_at = signal.Signals(number), time.monotonic()
        if number == signal.SIGHUP:
            write_nowhere(*self._terminals)
        if self.at_once:
            raise KeyboardInterrupt
        say(
            f"{self.received.name}: saving a checkpoint after this step or evaluation batch (once more to stop at once)"
        )


def highest(number: int, args: TrainingArguments) -> int:
    """The highest of a number that each process has; all of them must call this."""
    if args.world_size == 1:
        return number
    shared = torch.tensor(number, device=args.device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return int(shared)


class _EvaluationLeft(Exception):
    """Raised in the middle of an evaluation, to get out of it."""


class StopOnRequest(TrainerCallback):
    """Makes a Trainer save a checkpoint and stop after the step, or in the evaluation, in which the request came."""

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self._evaluating = self._after_step = False

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """From now on there is something to save, and to lose."""
        self.request.at_once = False
        work_begins()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask the trainer for a checkpoint and the end."""
        if self.request.agreed(args):
            _stop(control)
        return control

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the evaluation after this batch."""
        if self._evaluating and self.request.agreed(args):
            raise _EvaluationLeft

    def evaluate(self, evaluate: Callable[[], dict[str, float]], control: TrainerControl) -> dict[str, float]:
        """Evaluate; when the request comes, end without a result, and have a checkpoint saved and training stop."""
        self._evaluating = True
        try:
            return evaluate()
        except _EvaluationLeft:
            _stop(control)
            if self._after_step:
                raise
            return {}
        finally:
            self._evaluating = False

    def after_step(self, after_step: Callable[[], None]) -> None:
        """Do what a Trainer does after a step (log, evaluate, save); if the evaluation is left, only save."""
        self._after_step = True
        try:
            after_step()
        except _EvaluationLeft:
            after_step()  # which has nothing to log or evaluate any more
        finally:
            self._after_step = False

    def token_by_token(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """A stopping criterion of `generate`: it stops no sequence, but leaves the evaluation in the middle of a batch.

        For one process only: several could not agree between two tokens.
        """
        if self._evaluating and self.request.received is not None:
            raise _EvaluationLeft
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _stop(control: TrainerControl) -> None:
    control.should_save = True
    control.should_evaluate = False
    control.should_training_stop = True
