"""Ends a run whose loss or weights are no longer finite numbers, before they are saved.

A gradient that is NaN or infinite makes the weights so in the very step, in which the trainer has not saved them yet;
only weights that diverge without being so show up later, when the policy can't sample from its own probabilities.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mini_r1.policy.checkpoints import checkpoint_folders, missing, read_checkpoint
from mini_r1.program.problems import UserError
from mini_r1.train.interrupts import highest


class NonFiniteError(UserError, RuntimeError):
    """Training has diverged; the message names the step, the last checkpoint before it and what to change."""


class StopIfNotFinite(TrainerCallback):
    """Looks at the losses of each step, and at the weights after it, before the step is saved or evaluated."""

    def __init__(self) -> None:
        self._loss_is_finite = True

    def look_at(self, loss: Tensor) -> None:
        """Remember whether the loss of a micro-batch is finite, until the end of the step."""
        self._loss_is_finite = self._loss_is_finite and bool(loss.isfinite().all())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """End the run on every process if anything is not finite on one.

        Raises:
            NonFiniteError: the same on all.
        """
        found = 2 if not self._loss_is_finite else int(not all_finite(model.parameters()))
        found = highest(found, args)
        if found:
            raise diverged("the loss is" if found == 2 else "the weights are", state.global_step, args)


def all_finite(parameters: Iterable[Any]) -> bool:
    """Whether the trained parameters, or the parts of them that this process holds, have neither NaN nor infinity."""
    parts = (_local(parameter).detach() for parameter in parameters if parameter.requires_grad)
    # The largest magnitude is NaN where one element is; unlike a sum, it does not overflow.
    return all(bool(torch.linalg.vector_norm(part, torch.inf).isfinite()) for part in parts if part.numel())


def _local(parameter: Any) -> Tensor:
    """This process's part: DeepSpeed ZeRO-3 keeps it as `ds_tensor`, FSDP behind `to_local`."""
    if hasattr(parameter, "ds_tensor"):
        return parameter.ds_tensor
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def diverged(what: str, step: int, args: TrainingArguments) -> NonFiniteError:
    """What to tell the user after `step` steps whose weights are of no use.

    Args:
        what: what is not finite, with its verb: "the loss is".
    """
    output = Path(str(args.output_dir))
    if step == 0:
        return NonFiniteError(
            f"{what} not finite (NaN or infinite) before the first step: the weights of the model are broken, or too "
            f"large for their precision. Fix: another model, or dtype: float32"
        )
    complete = [folder for folder in checkpoint_folders(output) if missing(folder) is None]
    last = next((folder for folder in reversed(complete) if read_checkpoint(folder).step < step), None)
    useless = [str(folder) for folder in complete if read_checkpoint(folder).step >= step]
    return NonFiniteError(
        f"training has diverged: {what} not finite (NaN or infinite) at step {step}. "
        f"{f'{useless[0]} holds these weights, remove it' if useless else 'Nothing of it was saved'}; "
        f"{f'the last checkpoint before it is {last}' if last else 'there is no checkpoint before it'}. Fix: a lower "
        f"learning_rate (it is {args.learning_rate:g}) or max_grad_norm (it is {args.max_grad_norm:g}), in another "
        f"output_dir{f'; model_name_or_path: {last} starts from that checkpoint' if last else ''}"
    )
