"""Makes a run that resumes from a checkpoint the same as one that was never interrupted."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mini_r1.policy.checkpoints import STATE, Checkpoint, decide_for_all, missing, write_manifest

if TYPE_CHECKING:  # which takes seconds to import
    from trl import GRPOTrainer


class WriteManifest(TrainerCallback):
    """Makes the manifest the last file of every checkpoint, once all processes have written theirs.

    Args:
        run: the run's record (`mini_r1.runs.identity`).
        seconds: how long the run has taken so far, with the parts before it was resumed.
    """

    def __init__(self, run: dict[str, Any], seconds: Callable[[], float]) -> None:
        self.run, self.seconds = run, seconds

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Write `complete.json` into the checkpoint just saved."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            write_manifest(folder, args.world_size, {"seconds": round(self.seconds(), 1), "run": self.run})
        return control


def save_checkpoint_if_missing(trainer: "GRPOTrainer") -> None:
    """Save a checkpoint of the step that the trainer is at, outside of `train`; all processes must call this.

    Uses the Trainer's private name `_save_checkpoint`; tests/test_interrupts.py fails when that moves.
    """
    folder = Path(str(trainer.args.output_dir)) / f"checkpoint-{trainer.state.global_step}"
    if decide_for_all(trainer.args, lambda: missing(folder)) is None:
        return
    seams: Any = trainer
    seams._save_checkpoint(trainer.model, None)
    trainer.control = trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


class TakeNewSteps(TrainerCallback):
    """Lets save_steps, eval_steps and logging_steps of the recipe hold in a resumed run.

    The Trainer would go on with those that the checkpoint's state was written with.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the recipe's into the state just loaded."""
        state.compute_steps(args, state.max_steps)


@functools.cache  # PyTorch keeps every registration
def load_across_cpu_processes() -> None:
    """Let a checkpoint be resumed by several processes on a CPU.

    The Trainer maps the optimizer to the device of its process, `cpu:0`, a name that PyTorch has no loader for: "don't
    know how to restore data location of torch.storage.UntypedStorage (tagged with cpu:0)".
    """
    priority = 11  # after `cpu`, before `cuda`
    torch.serialization.register_package(
        priority, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )


def restore_data_order(trainer: "GRPOTrainer", checkpoint: Checkpoint) -> None:
    """Make TRL's sampler and generation cycle go on where the checkpoint was; call it before `train`.

    The Trainer skips the batches done in the current epoch, but TRL seeds its sampler anew, so that a run resumed in
    its second epoch repeats the first one's order; and it counts micro-batches from 0, so that a run resumed between
    two generations (`steps_per_generation` or `num_iterations` over several steps) mixes up its prompts.
    Uses two private names of TRL, `_step` and `_get_train_sampler`; tests/test_train.py fails when they move.
    """
    epochs = int(json.loads((checkpoint.folder / STATE).read_text(encoding="utf-8")).get("epoch") or 0)
    seams: Any = trainer
    new_sampler: Any = trainer._get_train_sampler

    def advanced_sampler(dataset: Any = None) -> Any:
        sampler = new_sampler(dataset)
        for _ in range(epochs if sampler.shuffle else 0):
            torch.randperm(sampler.num_samples, generator=sampler.generator)  # as at the start of each epoch
        return sampler

    seams._get_train_sampler = advanced_sampler
    seams._step = checkpoint.step * trainer.args.gradient_accumulation_steps


def train_nothing_if_done(trainer: "GRPOTrainer", checkpoint: Checkpoint) -> None:
    """Keep the Trainer from one step too many when the checkpoint has all `max_steps` behind it; call before `train`.

    It looks at the limit after a step only. Uses its private name `_run_epoch`; tests/test_train.py fails when that
    moves.
    """
    if checkpoint.step >= trainer.args.max_steps > 0:
        seams: Any = trainer
        seams._run_epoch = lambda **_: None
