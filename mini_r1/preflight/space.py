"""The preflight's check of memory and disk: what the run needs, item by item, against what is there."""

from pathlib import Path
from shutil import disk_usage

from trl import GRPOConfig

from mini_r1.machine.gpus import GIB, generation_gpu_ids
from mini_r1.machine.launch import Launch
from mini_r1.policy.shape import ModelShape
from mini_r1.preflight.memory import Item, Step, kv_tokens, peak, server_items, training_items
from mini_r1.preflight.plan import DEFAULT_GPU_GB, Findings, Plan
from mini_r1.program.problems import Problem
from mini_r1.runs.folder import output_path

VLLM_UTILIZATION = 0.9  # `vllm serve --gpu-memory-utilization`, its default
# An estimate nearer to the capacity than this share of it is a warning, since it does not count what an allocator can't
# use again: measured peaks were 3 to 6 % higher on an H200 (benchmarks/results/gpu.md), and on a CPU, whose system
# needs memory, too, 13.5 GiB where 9.0 were estimated (receipes/sft-smollm2-135m-countdown.yaml).
ROOM_ON_GPU, ROOM_ON_CPU = 0.1, 0.35


def check_memory(plan: Plan, shape: ModelShape, step: Step, findings: Findings) -> None:
    """Memory per GPU, itemised, against the capacity."""
    capacity = plan.capacity
    if plan.on_gpu and not plan.visible and not plan.script.gpu_memory_gb:
        findings.notes.append(f"capacity: {DEFAULT_GPU_GB:.0f} GiB assumed; --gpu_memory_gb gives another")
    items = training_items(shape, step, plan.launch, capacity)
    device = "GPU" if plan.on_gpu else "process"
    title = f"Memory per training {device} ({_parameters(shape)}; formulas: mini_r1/preflight/memory.py)"
    needed = peak(items) if plan.on_gpu else peak(items) * plan.launch.local_processes
    findings.sections.append((title, _item_rows(items, peak(items), capacity)))
    if capacity and needed > capacity:
        allowed = f"at most {_gib(capacity)}"
        findings.problems.append(
            Problem(f"memory per training {device}", _gib(needed), allowed, _less_memory(plan, step))
        )
    elif capacity and needed > capacity * (1 - (ROOM_ON_GPU if plan.on_gpu else ROOM_ON_CPU)):
        findings.notes.append(f"memory is tight: {_gib(needed)} of {_gib(capacity)}; {_less_memory(plan, step)}")
    if plan.generation == "own server":
        _check_server_memory(plan, shape, step, capacity, findings)


def _parameters(shape: ModelShape) -> str:
    count = shape.parameters
    return f"{count / 1e9:.2f} B parameters" if count >= 1e8 else f"{count / 1e6:.2f} M parameters"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= 0.05 * GIB else f"{size / 2**20:.1f} MiB"


def _item_rows(items: list[Item], total: float, capacity: int) -> list[tuple[str, str]]:
    """The items, largest phase marked by what it is; the total counts the largest phase only."""
    rows = []
    for item in items:
        phase = "" if item.phase == "always" else f" [{item.phase}]"
        rows.append((item.name, f"{_gib(item.size):>10}{phase}  {item.how}"))
    share = f" = {total / capacity:.0%} of {_gib(capacity)}" if capacity else ""
    return [*rows, ("at the peak", f"{_gib(total):>10}{share} (always + the largest of the phases)")]


def _less_memory(plan: Plan, step: Step) -> str:
    """The settings that save most, first."""
    half, doubled = step.micro_batch // 2, plan.training.gradient_accumulation_steps * 2
    stage = plan.launch.zero_stage
    ways = {
        "gradient_checkpointing: true": not step.checkpointing,
        f"per_device_train_batch_size: {half} with gradient_accumulation_steps: {doubled}": step.micro_batch > 1,
        "vllm_enable_sleep_mode: true": step.vllm_share and not step.vllm_sleeps,
        "configs/accelerate_configs/deepspeed_zero3.yaml": plan.launch.processes > 1 and stage < 3,
        "configs/accelerate_configs/deepspeed_zero3_offload.yaml": stage == 3 and not plan.launch.offload_optimizer,
        "beta: 0 (no reference model)": step.reference and not step.lora,
        "use_peft: true": not step.lora,
    }
    return "; or ".join(way for way, saves in ways.items() if saves) or "a smaller model or a larger GPU"


def _check_server_memory(plan: Plan, shape: ModelShape, step: Step, capacity: int, findings: Findings) -> None:
    """The generation GPU: weights, and KV cache for one completion at least."""
    parallel = max(1, len(generation_gpu_ids(plan.script.vllm_gpus)))
    items = server_items(shape, parallel, capacity, VLLM_UTILIZATION, step)
    findings.sections.append(("Memory per generation GPU", _item_rows(items, peak(items), capacity)))
    cache = next(item.size for item in items if item.name == "KV cache")
    if kv_tokens(shape, cache * parallel, step) < step.tokens:
        cause = f"a prompt and its completion have up to {step.tokens} tokens"
        fix = 'give the server more GPUs (vllm_gpus: "2,3") or take a smaller model'
        findings.problems.append(Problem("KV cache of the server", _gib(cache), "room for one completion", fix, cause))


def check_disk(plan: Plan, shape: ModelShape, step: Step, findings: Findings) -> None:
    """Disk for the checkpoints that are kept, and the final model."""
    one = checkpoint_bytes(shape, step, plan.launch, bool(plan.training.save_only_model))
    final = checkpoint_bytes(shape, step, plan.launch, model_only=True)
    kept = checkpoints_at_once(plan.training)
    needed, free = kept * one + final, free_bytes(output_path(plan.training))
    rows = [
        ("one checkpoint", _gib(one)),
        ("at most", f"{kept} at a time + the final model = {_gib(needed)} in {plan.training.output_dir}"),
        ("free here", _gib(free)),
    ]
    findings.sections.append(("Disk", rows))
    if needed > free and not plan.elsewhere:
        fix = "set save_total_limit: 1, save less often, or give an output_dir on a larger disk"
        cause = f"{kept} checkpoints of {_gib(one)} at a time and the final model take {_gib(needed)}"
        findings.problems.append(Problem("free disk", _gib(free), f"at least {_gib(needed)}", fix, cause))


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
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return disk_usage(folder).free
