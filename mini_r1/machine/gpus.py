"""The GPUs of this machine, and which of them train and which generate; CUDA stays untouched.

A process that has initialised CUDA holds some 500 MB of every GPU it looked at and can't fork safely, so the GPUs are
read from `nvidia-smi`, then cut down to what CUDA_VISIBLE_DEVICES leaves.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trl import GRPOConfig

from mini_r1.machine.generator import Generation, GpuIds, generation_gpu_ids, generation_kind
from mini_r1.machine.launch import Launch, read_launch
from mini_r1.program.problems import Problem

GIB = 2**30

# What this process saw before `use_training_gpu`, by the value that that gave to CUDA_VISIBLE_DEVICES.
_BEFORE: dict[str, list["Gpu"]] = {}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: `id` as CUDA_VISIBLE_DEVICES names it, memory in bytes (0 if unknown)."""

    id: str
    name: str
    memory: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which GPUs of this machine do what; a GPU may be in both only where training and generation share it."""

    training: tuple[Gpu, ...]
    generation: tuple[Gpu, ...]


def uses_gpus(training: GRPOConfig) -> bool:
    """Whether a recipe is for GPUs. `ddp_backend: gloo` is what several processes on a CPU talk through."""
    return not training.use_cpu and training.ddp_backend != "gloo"


def visible_gpus(environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that CUDA will see, in its order; none without a driver.

    As CUDA does, the list of CUDA_VISIBLE_DEVICES ends at the first id that does not exist.
    """
    installed = _installed_gpus()
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if environ is os.environ and wanted in _BEFORE:
        return list(_BEFORE[wanted])
    if wanted is None:
        return [Gpu(str(index), name, memory) for index, (_, name, memory) in enumerate(installed)]
    visible: list[Gpu] = []
    for gpu_id in (part.strip() for part in wanted.split(",")):
        found = [
            (name, memory)
            for index, (uuid, name, memory) in enumerate(installed)
            if gpu_id == str(index) or (gpu_id.startswith("GPU-") and uuid.startswith(gpu_id))
        ]
        if gpu_id.startswith("MIG-") and installed:
            found = [("MIG slice", 0)]
        if not found:
            break
        visible.append(Gpu(gpu_id, *found[0]))
    return visible


def _installed_gpus() -> list[tuple[str, str, int]]:
    """(uuid, name, bytes of memory) of every GPU that the driver knows; none if it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    gpus = []
    for line in done.stdout.splitlines():
        uuid, name, memory = (part.strip() for part in line.split(",", maxsplit=2))
        gpus.append((uuid, name, int(memory) * 2**20 if memory.isdigit() else 0))
    return gpus


def gpus_needed(launch: Launch, generation: Generation, vllm_gpus: GpuIds) -> tuple[int, int]:
    """How many GPUs this machine needs: (for training, for generation beyond those)."""
    serves = generation == "own server" and launch.machine_rank == 0
    return launch.local_processes, max(1, len(generation_gpu_ids(vllm_gpus))) if serves else 0


def assign_gpus(
    visible: Sequence[Gpu], launch: Launch, generation: Generation, vllm_gpus: GpuIds
) -> tuple[Assignment, list[Problem]]:
    """Give the first visible GPUs to the training processes, as accelerate does, and find those of the server.

    Returns:
        the assignment (as far as it goes) and what is wrong with it: too few GPUs, an unknown one, or one used twice.
    """
    for_training, for_server = gpus_needed(launch, generation, vllm_gpus)
    training = tuple(visible[:for_training])
    shown = ",".join(gpu.id for gpu in visible) or "none"
    if len(visible) < for_training + for_server:
        fix = "use a machine with more GPUs, or start fewer processes (accelerate launch --num_processes)"
        if not visible:
            fix += "; to train on the CPU set use_cpu: true and bf16: false"
        if for_server:
            fix += ", or generate on the training GPUs (vllm_mode: colocate), or name a running server "
            fix += "(vllm_server_base_url)"
        needs = f"at least {for_training + for_server} ({for_training} training + {for_server} generation)"
        return Assignment(training, ()), [Problem("visible GPUs", f"{len(visible)} ({shown})", needs, fix)]
    if not for_server:
        return Assignment(training, training if generation in ("colocate", "transformers") else ()), []
    named = generation_gpu_ids(vllm_gpus)
    by_id = {gpu.id: gpu for gpu in visible}
    free = [gpu.id for gpu in visible[for_training:]]
    bad = [gpu_id for gpu_id in named if gpu_id not in free]
    if bad or len(set(named)) < len(named):
        cause = f"training uses {', '.join(bad)}" if any(gpu_id in by_id for gpu_id in bad) else ""
        allowed = f"one or more, each once, of the visible GPUs that training leaves free: {', '.join(free)}"
        fix = f'set vllm_gpus: "{free[-1]}", or leave it out'
        return Assignment(training, ()), [Problem("vllm_gpus", ",".join(named), allowed, fix, cause)]
    server = tuple(by_id[gpu_id] for gpu_id in named) or (visible[-1],)
    return Assignment(training, server), []


def server_gpus(training: GRPOConfig, vllm_gpus: GpuIds) -> list[str]:
    """Where the server that this run starts goes, for its CUDA_VISIBLE_DEVICES; empty on a CPU."""
    if not uses_gpus(training):
        return []
    launch = read_launch(os.environ, training.deepspeed)
    assignment, _ = assign_gpus(visible_gpus(), launch, generation_kind(training), vllm_gpus)  # preflight has checked
    return [gpu.id for gpu in assignment.generation]


def use_training_gpu(training: GRPOConfig, vllm_gpus: GpuIds) -> str | None:
    """Show a process that trains alone only the GPU that it trains on; to be called before CUDA is touched.

    transformers would spread the model over all visible GPUs with nn.DataParallel, which GRPOTrainer refuses. The GPUs
    of the generation server stay known to `server_gpus`.

    Returns:
        a line on GPUs that nobody uses; None if all are in use.
    """
    if not uses_gpus(training):
        return None
    launch, visible, kind = read_launch(os.environ, training.deepspeed), visible_gpus(), generation_kind(training)
    if launch.processes > 1 or len(visible) < 2:
        return None
    assignment, _ = assign_gpus(visible, launch, kind, vllm_gpus)
    (gpu,) = assignment.training
    _BEFORE[gpu.id] = visible
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.id
    return idle_gpus(visible, assignment, launch, kind)


def idle_gpus(visible: Sequence[Gpu], assignment: Assignment, launch: Launch, kind: Generation) -> str | None:
    """What to say of GPUs that a single process leaves idle, with the launch that would use them."""
    idle = [gpu.id for gpu in visible if gpu not in (*assignment.training, *assignment.generation)]
    if launch.processes > 1 or not idle or not assignment.training:
        return None
    config = "deepspeed_zero3" if kind == "own server" else "ddp"
    return (
        f"one process trains on one GPU, {assignment.training[0].id}; idle: {','.join(idle)}. To train on "
        f"{1 + len(idle)}: accelerate launch --num_processes {1 + len(idle)} --config_file "
        f"configs/accelerate_configs/{config}.yaml scripts/run_r1_grpo.py with the same arguments"
    )


def machine_memory() -> int:
    """The machine's own memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
