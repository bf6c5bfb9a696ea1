"""How this process was launched: how many processes on how many machines, and which part of the model each holds.

Read from the environment that `accelerate launch` (1.15: accelerate/utils/launch.py) and `torchrun` set, before any
process group or GPU is touched. A dry run can plan for another launch: `planned_environment` says what that would set.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import yaml
from accelerate.commands.config.config_args import load_config_from_file

from mini_r1.program.failures import launcher_store
from mini_r1.program.problems import UserError

Engine = Literal["single", "ddp", "deepspeed", "fsdp"]
MEETING = timedelta(minutes=10)  # that processes wait for each other


@dataclass(frozen=True, slots=True)
class Launch:
    """One process's place among all of them.

    Attributes:
        processes: training processes in all; each has a GPU of its own.
        local_processes: those on this machine.
        rank, local_rank: this process among all, and among those of its machine.
        engine: who distributes the training.
        zero_stage: 0 to 3, what is divided over the processes: nothing; optimizer; and gradients; and weights.
            FSDP that reshards is 3, FSDP that does not is 2.
        offload_optimizer, offload_weights: kept in the machine's memory (or on disk) instead of the GPU's.
    """

    processes: int = 1
    local_processes: int = 1
    rank: int = 0
    local_rank: int = 0
    engine: Engine = "single"
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_weights: bool = False

    @property
    def machines(self) -> int:
        """Machines; the last may have fewer processes, where one of its GPUs generates."""
        return max(1, math.ceil(self.processes / self.local_processes))

    @property
    def machine_rank(self) -> int:
        """This machine among all; the generation server runs on the first, 0."""
        return self.rank // self.local_processes

    def describe(self) -> str:
        """In a few words, such as "3 processes on 1 machine, DeepSpeed ZeRO-3"."""
        engine = {
            "single": "no distribution",
            "ddp": "DDP",
            "deepspeed": f"DeepSpeed ZeRO-{self.zero_stage}",
            "fsdp": f"FSDP ({'weights, ' if self.zero_stage == 3 else ''}gradients and optimizer divided)",
        }[self.engine]
        parts = [name for name, on in (("optimizer", self.offload_optimizer), ("weights", self.offload_weights)) if on]
        offload = f", {' and '.join(parts)} off the GPU" if parts else ""
        return f"{_count(self.processes, 'process')} on {_count(self.machines, 'machine')}, {engine}{offload}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def read_launch(environ: Mapping[str, str], deepspeed: str | dict[str, Any] | None = None) -> Launch:
    """Read the launch of this process.

    Args:
        environ: `os.environ`.
        deepspeed: the recipe's own DeepSpeed configuration (path or dict), which goes before the launcher's.

    Raises:
        UserError: if a DeepSpeed configuration file is missing or no JSON.
    """
    processes = int(environ.get("WORLD_SIZE", 1))
    place = Launch(
        processes=processes,
        local_processes=int(environ.get("LOCAL_WORLD_SIZE", processes)),
        rank=int(environ.get("RANK", 0)),
        local_rank=int(environ.get("LOCAL_RANK", 0)),
        engine="ddp" if processes > 1 else "single",
    )
    file = environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if deepspeed or (_is_true(environ, "ACCELERATE_USE_DEEPSPEED") and file != "none"):
        return _with_deepspeed_config(place, deepspeed or file)
    if _is_true(environ, "ACCELERATE_USE_DEEPSPEED"):
        prefix = "ACCELERATE_DEEPSPEED_"
        return replace(
            place,
            engine="deepspeed",
            zero_stage=int(environ.get(f"{prefix}ZERO_STAGE", 2)),  # accelerate's own default
            offload_optimizer=environ.get(f"{prefix}OFFLOAD_OPTIMIZER_DEVICE", "none").lower() != "none",
            offload_weights=environ.get(f"{prefix}OFFLOAD_PARAM_DEVICE", "none").lower() != "none",
        )
    if _is_true(environ, "ACCELERATE_USE_FSDP"):
        offload = _is_true(environ, "FSDP_OFFLOAD_PARAMS")
        stage = 3 if _is_true(environ, "FSDP_RESHARD_AFTER_FORWARD", "true") else 2
        return replace(place, engine="fsdp", zero_stage=stage, offload_optimizer=offload, offload_weights=offload)
    return place


def _is_true(environ: Mapping[str, str], name: str, default: str = "false") -> bool:
    return environ.get(name, default).lower() in ("1", "true", "full_shard")


def _with_deepspeed_config(place: Launch, config: str | dict[str, Any]) -> Launch:
    if isinstance(config, str):
        try:
            text = config if config.lstrip().startswith("{") else Path(config).read_text(encoding="utf-8")
            config = dict(json.loads(text))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"it is not JSON ({error})"
            raise UserError(
                f"the DeepSpeed configuration {config} can't be read: {reason}. Correct its path"
            ) from error
    zero = config.get("zero_optimization", {})
    return replace(
        place,
        engine="deepspeed",
        zero_stage=int(zero.get("stage", 0)),
        offload_optimizer=zero.get("offload_optimizer", {}).get("device", "none") != "none",
        offload_weights=zero.get("offload_param", {}).get("device", "none") != "none",
    )


def planned_environment(config_file: str | None, processes: int | None, per_machine: int | None) -> dict[str, str]:
    """What `accelerate launch` would set for the first process, without a start and without DeepSpeed installed.

    Args:
        config_file: accelerate's configuration; None plans plain DDP.
        processes: training processes in all; None takes the file's `num_processes`.
        per_machine: those on each machine (the last may have fewer); None divides them over the file's machines.

    Raises:
        UserError: if the file can't be used, or a number is less than 1.
    """
    config: dict[str, Any] = {"distributed_type": "MULTI_GPU", "num_processes": 1, "num_machines": 1}
    if config_file:
        config = _accelerate_config(config_file)
    count = processes if processes is not None else config["num_processes"]
    local = per_machine if per_machine is not None else math.ceil(count / config["num_machines"])
    for name, value in (("plan_processes", count), ("plan_processes_per_machine", local)):
        if value < 1:
            raise UserError(
                f"{name} is {value}, but at least 1 process trains. Add --{name} with a number of 1 or more"
            )
    place = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(min(local, count)), "RANK": "0", "LOCAL_RANK": "0"}
    return place | _engine_variables(config)


def _engine_variables(config: dict[str, Any]) -> dict[str, str]:
    """What of a configuration accelerate hands on to its processes, as far as `read_launch` reads it."""
    engine = config["distributed_type"]
    switch, prefix, own = {
        "DEEPSPEED": ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_", "deepspeed_"),
        "FSDP": ("ACCELERATE_USE_FSDP", "FSDP_", "fsdp_"),
    }.get(engine, ("", "", ""))
    options = config.get(f"{engine.lower()}_config", {}) if switch else {}
    variables = {
        f"{prefix}{key.removeprefix(own).upper()}": str(value) for key, value in options.items() if value is not None
    }
    return {switch: "true", **variables} if switch else {}


def _accelerate_config(file: str) -> dict[str, Any]:
    """The configuration of accelerate, for a launch that starts a process for each GPU."""
    try:
        config = dict(load_config_from_file(file).to_dict())
    except FileNotFoundError as error:
        known = ", ".join(sorted(map(str, Path("configs/accelerate_configs").glob("*.yaml")))) or "none"
        raise UserError(f"there is no accelerate configuration {file!r}. Here are: {known}") from error
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"accelerate can't use the configuration {file!r}: {reason}") from error
    if config["distributed_type"] not in ("DEEPSPEED", "FSDP", "MULTI_GPU"):
        raise UserError(
            f"distributed_type is {config['distributed_type']} in {file!r}, with which accelerate starts one process. "
            "Take DEEPSPEED, FSDP or MULTI_GPU, or plan without the file"
        )
    for name in ("num_processes", "num_machines"):
        if not isinstance(config[name], int) or config[name] == 0:
            raise UserError(f"{name} is {config[name]!r} in {file!r}. Give a whole number of 1 or more")
    return config


def share_findings(launch: Launch, findings: str) -> list[str]:
    """Exchange a text with all processes, before there is a process group; called once by each.

    Returns:
        one text per process, by rank; only this one's where the launcher keeps no store for its workers.

    Raises:
        torch.distributed.DistStoreError: if a process does not come within ten minutes.
    """
    store = launcher_store(MEETING) if launch.processes > 1 else None
    if store is None:
        return [findings]
    store.set(f"mini_r1/findings/{launch.rank}", findings)
    return [store.get(f"mini_r1/findings/{rank}").decode() for rank in range(launch.processes)]


def wait_until_shown(launch: Launch, shown: bool) -> None:
    """Let all go on when the one that has something to show (`shown`) has shown it: a launcher kills the others."""
    if launch.processes == 1 or (store := launcher_store(MEETING)) is None:
        return
    if shown:
        store.set("mini_r1/shown", "yes")
    store.get("mini_r1/shown")
