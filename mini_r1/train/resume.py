"""Makes a resumed run the same as one that was never interrupted."""

import functools
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mini_r1.policy.checkpoints import STATE, Checkpoint, engine_of, write_manifest

GENERATION = "generation-{}.pt"  # of a process, in a checkpoint


class WriteManifest(TrainerCallback):
    """Makes the manifest the last file of every checkpoint, once all processes have written theirs.

    Args:
        run: the run's record (`mini_r1.runs.identity`).
        since: the time of `time.monotonic` at which the run would have started had it never been interrupted.
    """

    def __init__(self, run: dict[str, Any], since: float) -> None:
        self.run, self.since = run, since

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Write `complete.json` into the checkpoint just saved."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            more = {"seconds": round(time.monotonic() - self.since, 1), "run": self.run}
            write_manifest(folder, state.global_step, engine_of(args), args.world_size, more)
        return control


class TakeNewSteps(TrainerCallback):
    """Lets save_steps, eval_steps and logging_steps of the recipe hold in a resumed run.

    The Trainer would continue with those that the checkpoint's state was written with.
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


def save_generation(folder: Path, batches: Any, args: TrainingArguments) -> None:
    """Keep, in a checkpoint, the completions of a generation that some updates have still to learn from.

    Args:
        batches: of this process, as the trainer holds them: tensors by name.
    """
    torch.save(batches, folder / GENERATION.format(args.process_index))


def load_generation(folder: Path, args: TrainingArguments) -> Any:
    """What `save_generation` has kept for this process; None where the next update has completions of its own."""
    path = folder / GENERATION.format(args.process_index)
    # Not `args.device`, which may be cpu:0: see load_across_cpu_processes. A process has one current GPU.
    return torch.load(path, map_location=args.device.type, weights_only=True) if path.exists() else None


def epochs_done(checkpoint: Checkpoint) -> int:
    """How many complete passes over the data a checkpoint has behind it."""
    return int(json.loads((checkpoint.folder / STATE).read_text(encoding="utf-8")).get("epoch") or 0)


def skip_epochs(sampler: Any, epochs: int) -> None:
    """Bring TRL's sampler, which is seeded, to where it is after so many epochs: it draws one order at each start."""
    for _ in range(epochs if sampler.shuffle else 0):
        torch.randperm(sampler.num_samples, generator=sampler.generator)
