"""Everything that can be known before a run starts: what it will do, what it needs, and what stands in its way.

Reads configurations, the tokenizer, some puzzles and the environment; loads no weights and touches no GPU. A dry run on
a machine without GPUs plans for another one: what is missing on this machine is then said, but is no problem.
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from trl import GRPOConfig, ModelConfig

from mini_r1.hub.access import check_hub_access, offline_if_unreachable, uses_hub
from mini_r1.machine.gpus import (
    GIB,
    Assignment,
    assign_gpus,
    generation_gpu_ids,
    generation_kind,
    gpus_needed,
    idle_gpus,
    uses_gpus,
    visible_gpus,
)
from mini_r1.machine.launch import planned_environment, read_launch, share_findings, wait_until_shown
from mini_r1.policy.shape import ModelShape
from mini_r1.preflight.disk import checkpoint_bytes, checkpoints_at_once, free_bytes
from mini_r1.preflight.memory import INT8, NF4, NF4_NESTED, Item, Step, kv_tokens, peak, server_items, training_items
from mini_r1.preflight.model import check_model
from mini_r1.preflight.packages import check_logins, check_packages
from mini_r1.preflight.plan import DEFAULT_GPU_GB, Findings, Plan
from mini_r1.preflight.prompts import check_prompts
from mini_r1.preflight.rehearsal import rehearse
from mini_r1.program.problems import Problem, ProblemError, UserError
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.batches import BATCH_KEYS, BatchPlan, plan_batches
from mini_r1.recipe.contradictions import say_without_effect
from mini_r1.recipe.values import check_rewards, check_values, with_defaults
from mini_r1.runs.folder import examine_output, output_path
from mini_r1.runs.identity import RunRecord, record_run
from mini_r1.runs.lock import check_unlocked

VLLM_UTILIZATION = 0.9  # `vllm serve --gpu-memory-utilization`, its default
ROOM_TO_SPARE = 0.05  # fragmentation of the allocator; an estimate nearer to the capacity than this is a warning


def check_run(
    script: ScriptArguments,
    training: GRPOConfig,
    model: ModelConfig,
    environ: Mapping[str, str] = os.environ,
) -> Findings:
    """Check a recipe, read with `read_recipe`, against this launch and this machine."""
    findings = Findings()
    visible = visible_gpus(environ) if uses_gpus(training) else []
    findings.problems += [*check_values(script, training, model), *check_rewards(script, training)]
    findings.warnings += say_without_effect(script, training, model)
    # The other checks go on with the defaults in place of bad values, so that all problems are told at once.
    script, training, model = with_defaults(findings.problems, script, training, model)
    launch = read_launch(environ, training.deepspeed)
    plan = Plan(script, training, model, launch, generation_kind(training), visible)
    batches = _check_batches(plan, findings)
    _check_gpus(plan, findings)
    began = _check_output(plan, findings)
    _check_packages(plan, environ, findings)
    remote = uses_hub(str(model.model_name_or_path), script) or training.push_to_hub
    with offline_if_unreachable() if remote else nullcontext(True) as reachable:
        if not reachable:
            note = "the Hugging Face Hub can't be reached: only what this machine has already can be used"
            findings.notes.append(note)
        config, shape = check_model(plan, findings)
        if shape is not None:
            _check_memory(plan, shape, findings)
            _check_disk(plan, shape, findings)
        check_prompts(plan, batches, config, began, findings)
        _check_services(plan, findings)
    _estimate_time(plan, findings)
    findings.summary = _summary(plan, batches)
    return findings


# --- batches and GPUs ----------------------------------------------------------------------------------------------


def _check_batches(plan: Plan, findings: Findings) -> BatchPlan:
    """The arithmetic of a step, and what else TRL's GRPOConfig refuses; not of sizes that are bad by themselves."""
    batches, problems = plan_batches(plan.training, plan.launch.processes)
    findings.sections.append(("Batch", batches.rows()))
    if not {problem.name for problem in findings.problems} & BATCH_KEYS:
        refused = None if problems else rehearse(plan.training, plan.launch.processes)
        findings.problems += [*problems, *([refused] if refused else [])]
    return batches


def _check_packages(plan: Plan, environ: Mapping[str, str], findings: Findings) -> None:
    """What the recipe names that is to be installed, and the logins that would be asked for."""
    problems, notes = check_packages(plan)
    login = check_logins(plan, environ)
    findings.problems += [*problems, *([login] if login else [])]
    findings.notes += notes


def _check_output(plan: Plan, findings: Findings) -> RunRecord:
    """What the output folder holds, and whether this run may use it.

    Returns:
        what the run there began with, if it is resumed; else an empty record.
    """
    try:
        record = record_run(plan.script)
        standing = examine_output(plan.script, plan.training, plan.model, record, plan.launch.processes)
        check_unlocked(output_path(plan.training))
    except ProblemError as error:
        if error.problem not in findings.problems:  # a task that there is not has been told of before
            findings.problems.append(error.problem)
        return RunRecord()
    findings.sections.append(("Output folder", [(str(plan.training.output_dir), standing.words)]))
    findings.notes += standing.notes
    return standing.began or RunRecord()


def _check_gpus(plan: Plan, findings: Findings) -> None:
    """GPUs needed against GPUs visible, and which does what."""
    if not plan.on_gpu:
        findings.sections.append(("Machine", [("launch", plan.launch.describe()), ("device", "CPU")]))
        return
    training, generation = gpus_needed(plan.launch, plan.generation, plan.script.vllm_gpus)
    assignment, problems = assign_gpus(plan.visible, plan.launch, plan.generation, plan.script.vllm_gpus)
    needed = training + generation
    where = "on this machine" if plan.launch.machines == 1 else f"on machine {plan.launch.machine_rank}"
    if plan.elsewhere:
        findings.notes.append(f"the run needs {_count(needed)}; this machine has none: planning for another one")
    else:
        findings.problems += problems
        if idle := idle_gpus(plan.visible, assignment, plan.launch, plan.generation):
            findings.notes.append(idle)
    rows = [
        ("launch", plan.launch.describe()),
        ("generation", _generation(plan, generation)),
        ("GPUs needed", f"{needed} {where}: {training} training + {generation} generation"),
        ("GPUs visible", _shown(plan, assignment)),
    ]
    if plan.launch.machines > 1:
        total = plan.launch.processes + max(1, len(generation_gpu_ids(plan.script.vllm_gpus))) * bool(generation)
        rows.append(("GPUs in all", f"{total} on {plan.launch.machines} machines"))
    findings.sections.append(("Machine", rows))


def _count(gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs"


def _generation(plan: Plan, gpus: int) -> str:
    return {
        "own server": f"a vLLM server that this run starts, on {_count(gpus)}",
        "other server": f"the vLLM server at {plan.training.vllm_server_base_url or plan.training.vllm_server_host}",
        "colocate": "vLLM on the training GPUs (colocate)",
        "transformers": "transformers, on the training GPUs",
    }[plan.generation]


def _shown(plan: Plan, assignment: Assignment) -> str:
    if not plan.visible:
        return "none"
    training = ",".join(gpu.id for gpu in assignment.training)
    parts = [f"training on {training}"]
    if plan.generation == "own server" and assignment.generation:
        parts.append(f"generation on {','.join(gpu.id for gpu in assignment.generation)}")
    return f"{len(plan.visible)} ({plan.visible[0].name}): {', '.join(parts)}"


# --- memory and disk -----------------------------------------------------------------------------------------------


def step_of(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> Step:
    """What of a recipe decides over memory."""
    bits = bool(model.load_in_4bit or model.load_in_8bit)
    linear = (NF4_NESTED if model.use_bnb_nested_quant else NF4) if model.load_in_4bit else INT8
    mixed = bool(training.bf16 or training.fp16 or (training.bf16 is None and not training.fp16))
    weights = 2 if model.dtype in ("bfloat16", "float16") else 4
    generation = generation_kind(training)
    micro, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    at_a_time = micro * (training.steps_per_generation or accumulation)
    share = float(training.vllm_gpu_memory_utilization) if generation == "colocate" else 0.0
    return Step(
        micro_batch=micro,
        prompt=script.max_prompt_length,
        completion=int(training.max_completion_length or 0),
        weight_bytes=weights,
        compute_bytes=2 if mixed else weights,
        checkpointing=bool(training.gradient_checkpointing),
        reference=training.beta != 0,
        lora=bool(model.use_peft),
        linear_bytes=linear if bits else None,
        optimizer_bytes=_optimizer_bytes(training),
        generated=at_a_time if generation == "transformers" else 0,
        vllm_share=share,
        vllm_sleeps=bool(training.vllm_enable_sleep_mode),
        on_gpu=uses_gpus(training),
        triton=uses_gpus(training),
    )


def _optimizer_bytes(training: GRPOConfig) -> int:
    """Bytes of optimizer state per trained parameter."""
    name = str(getattr(training.optim, "value", training.optim))
    if name == "sgd":
        return 0
    return 2 if "8bit" in name else 8


def _check_memory(plan: Plan, shape: ModelShape, findings: Findings) -> None:
    """Memory per GPU, itemised, against the capacity."""
    step = step_of(plan.script, plan.training, plan.model)
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
    elif capacity and needed > capacity * (1 - ROOM_TO_SPARE):
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
    ways = []
    if not step.checkpointing:
        ways.append("gradient_checkpointing: true")
    if step.micro_batch > 1:
        half = step.micro_batch // 2
        doubled = plan.training.gradient_accumulation_steps * 2
        ways.append(f"per_device_train_batch_size: {half} with gradient_accumulation_steps: {doubled}")
    if step.vllm_share and not step.vllm_sleeps:
        ways.append("vllm_enable_sleep_mode: true")
    if plan.launch.processes > 1 and plan.launch.zero_stage < 3:
        ways.append("configs/accelerate_configs/deepspeed_zero3.yaml")
    if plan.launch.zero_stage == 3 and not plan.launch.offload_optimizer:
        ways.append("configs/accelerate_configs/deepspeed_zero3_offload.yaml")
    if step.reference and not step.lora:
        ways.append("beta: 0 (no reference model)")
    if not step.lora:
        ways.append("use_peft: true")
    return "; or ".join(ways) or "a smaller model or a larger GPU"


def _check_server_memory(plan: Plan, shape: ModelShape, step: Step, capacity: int, findings: Findings) -> None:
    """The generation GPU: weights, and KV cache for one completion at least."""
    parallel = max(1, len(generation_gpu_ids(plan.script.vllm_gpus)))
    items = server_items(shape, parallel, capacity, VLLM_UTILIZATION, step)
    findings.sections.append(("Memory per generation GPU", _item_rows(items, peak(items), capacity)))
    cache = next(item.size for item in items if item.name == "KV cache")
    longest = step.prompt + step.completion
    if kv_tokens(shape, cache * parallel, step) < longest:
        cause = f"a prompt and its completion have up to {longest} tokens"
        fix = 'give the server more GPUs (vllm_gpus: "2,3") or take a smaller model'
        findings.problems.append(Problem("KV cache of the server", _gib(cache), "room for one completion", fix, cause))


def _check_disk(plan: Plan, shape: ModelShape, findings: Findings) -> None:
    """Disk for the checkpoints that are kept, and the final model."""
    step = step_of(plan.script, plan.training, plan.model)
    one = checkpoint_bytes(shape, step, plan.launch, bool(plan.training.save_only_model))
    final = checkpoint_bytes(shape, step, plan.launch, model_only=True)
    kept = checkpoints_at_once(plan.training)
    needed, free = kept * one + final, free_bytes(Path(plan.training.output_dir or "trainer_output"))
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


# --- services, time ------------------------------------------------------------------------------------------------


def _check_services(plan: Plan, findings: Findings) -> None:
    account, problem = check_hub_access(plan.training)
    if account:
        findings.sections.append(("Hub", [("push", account)]))
    if problem:
        findings.problems.append(problem)


def _estimate_time(plan: Plan, findings: Findings) -> None:
    """How long the run takes, and how many GPU hours."""
    script, steps = plan.script, plan.training.max_steps
    if script.seconds_per_step is None or steps <= 0:
        return
    hours = script.seconds_per_step * steps / 3600
    generation = gpus_needed(plan.launch, plan.generation, script.vllm_gpus)[1]
    gpus = plan.launch.processes + generation
    rows = [("time", f"{steps} steps x {script.seconds_per_step:g} s = {hours:.1f} h")]
    if plan.on_gpu:
        rows.append(("GPU hours", f"{gpus * hours:.1f} on {_count(gpus)}"))
    findings.sections.append(("Time", rows))


def _summary(plan: Plan, batches: BatchPlan) -> str:
    size = f"{batches.rows()[0][1]} prompts x {batches.generations} completions a step"
    where = "CPU" if not plan.on_gpu else _count(sum(gpus_needed(plan.launch, plan.generation, plan.script.vllm_gpus)))
    missing = ", on a machine that has them: this one has none" if plan.elsewhere else ""
    return f"{size}, {plan.launch.describe()}, {where}{missing}"


def planned(script: ScriptArguments) -> dict[str, str]:
    """The environment of the launch that a dry run is to plan for; empty for this process's own.

    Raises:
        UserError: for such a plan without dry_run, or one that can't be.
    """
    plan = (script.plan_accelerate_config, script.plan_processes, script.plan_processes_per_machine)
    if plan == (None, None, None):
        return {}
    if not script.dry_run:
        raise UserError(
            "plan_accelerate_config, plan_processes and plan_processes_per_machine say what a dry run plans for. Add "
            "--dry_run, or start the run with `accelerate launch --config_file ... --num_processes ...` instead"
        )
    return planned_environment(*plan)


def run_preflight(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> int:
    """Check on each machine, and let the first process print: all in a dry run, else one line, or every problem.

    Returns:
        0 if the run may start, else 2: the same on every process.
    """
    environ = os.environ | planned(script)
    launch = read_launch(environ, training.deepspeed)
    findings = Findings()
    if launch.local_rank == 0:  # the others of the machine would find the same
        findings = check_run(script, training, model, environ)
    everyones = share_findings(launch, "\n".join(map(str, findings.problems)))
    others = [(rank, text) for rank, text in enumerate(everyones) if text and rank != launch.rank]
    if launch.rank == 0 or (len(everyones) == 1 and launch.local_rank == 0):
        print(findings.table() if script.dry_run or findings.problems else findings.verdict(), flush=True)
        for rank, text in others:
            print(f"preflight on machine {rank // launch.local_processes}:\n{text}", flush=True)
    wait_until_shown(launch, shown=launch.rank == 0)
    return 2 if any(everyones) else 0
