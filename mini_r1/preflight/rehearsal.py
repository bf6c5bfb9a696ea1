"""TRL's own refusals, in seconds: builds its configuration of the recipe's values, without a device or process group.

The real one needs the GPUs and joins the other processes. This one is the same class with its device and its number of
processes given, so that all its other checks run, on a laptop as on the node.
"""

import copy
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from transformers import get_scheduler
from trl import GRPOConfig

from mini_r1.program.problems import Problem, shown
from mini_r1.recipe.arguments import Method
from mini_r1.recipe.method import config_class, config_values

_DEFAULTS = {key.name: key.default for key in fields(GRPOConfig)}
# What needs the recipe's GPUs, or the other processes; the rest is built as written.
WITHOUT_DEVICE = {
    "use_cpu": True,
    "tf32": None,
    "torch_compile": False,
    "torch_compile_backend": None,
    "torch_compile_mode": None,
    "deepspeed": None,
}


def rehearse(training: GRPOConfig, processes: int, method: Method = "grpo") -> Problem | None:
    """What GRPOConfig, or SFTConfig, will refuse, with the key where its message names one.

    Args:
        training: read with `read_recipe`, so that its values are those of the recipe.
        processes: training processes of the launch.
    """
    kind: Any = config_class(method)

    class Rehearsal(kind):
        """That class without `_setup_devices`, which starts CUDA and the process group."""

        device = torch.device("cpu")
        world_size = processes

    written = copy.deepcopy(config_values(training, method))
    try:
        with _untouched_environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _build_scheduler(Rehearsal(**written | WITHOUT_DEVICE))
    except Exception as error:  # a library's: whatever it is, the run would end with it
        return _as_problem(error, written)
    return None


def _build_scheduler(config: GRPOConfig) -> None:
    """As the Trainer will at its first step, for a model of one number."""
    get_scheduler(
        config.lr_scheduler_type,
        optimizer=torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate),
        num_warmup_steps=0,
        num_training_steps=max(1, config.max_steps),
        scheduler_specific_kwargs=config.lr_scheduler_kwargs,  # type: ignore[arg-type]  # a dict by now
    )


@contextmanager
def _untouched_environment() -> Iterator[None]:
    """Hide what the launcher set, and undo what transformers sets."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("ACCELERATE_", "FSDP_")):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _as_problem(error: Exception, written: dict[str, Any]) -> Problem:
    """The first line of a library's message, with the first key that it names."""
    said = " ".join(str(error).split()) or type(error).__name__
    named = [word for word in re.findall(r"[a-z][a-z0-9_]+", said) if word in written]
    texts = {name: value for name, value in written.items() if isinstance(value, str) and value != _DEFAULTS.get(name)}
    named = named or [name for name, value in texts.items() if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", said)]
    allowed = "what TRL takes"
    if not named:
        return Problem("the recipe", "refused by TRL", allowed, "correct what the message names", said)
    return Problem(named[0], shown(written[named[0]]), allowed, f"correct {' or '.join(dict.fromkeys(named))}", said)
