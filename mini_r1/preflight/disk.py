"""How much disk the checkpoints of a run take."""

from pathlib import Path
from shutil import disk_usage

from trl import GRPOConfig

from mini_r1.machine.launch import Launch
from mini_r1.policy.shape import ModelShape
from mini_r1.preflight.memory import Step


def checkpoint_bytes(shape: ModelShape, step: Step, launch: Launch, model_only: bool) -> float:
    """Bytes of one checkpoint: the weights (or the adapter) and, to resume it, the optimizer.

    DeepSpeed saves its float32 master weights with Adam's moments; its model is saved in the type that it computes in.
    """
    trained = shape.adapter if step.lora else shape.parameters
    deepspeed = launch.engine == "deepspeed"
    weights = trained * (step.compute_bytes if deepspeed else step.weight_bytes)
    optimizer = 0 if model_only else trained * (step.optimizer_bytes + (4 if deepspeed else 0))
    return float(weights + optimizer)


def checkpoints_at_once(training: GRPOConfig) -> int:
    """The most checkpoints on disk: the limit and the one being written, or all that the steps make; 0 if none."""
    strategy = str(getattr(training.save_strategy, "value", training.save_strategy))
    if strategy == "no":
        return 0
    every = training.save_steps
    made = -(-training.max_steps // int(every)) if strategy == "steps" and training.max_steps > 0 and every >= 1 else 1
    return min(made, training.save_total_limit + 1) if training.save_total_limit else made


def free_bytes(folder: Path) -> int:
    """Free disk where `folder` is or will be."""
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return disk_usage(folder).free
