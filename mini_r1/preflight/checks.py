"""Everything that can be known before a run starts: what it will do, what it needs, and what stands in its way.

Reads configurations, the tokenizer, some puzzles and the environment; loads no weights and touches no GPU. A dry run on
a machine without GPUs plans for another one: what is missing on this machine is then said, but is no problem.
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext

from trl import GRPOConfig, ModelConfig

from mini_r1.hub.access import check_hub_access, offline_if_unreachable, uses_hub
from mini_r1.machine.gpus import (
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
from mini_r1.preflight.memory import step_of
from mini_r1.preflight.model import check_model
from mini_r1.preflight.packages import check_packages
from mini_r1.preflight.plan import Findings, Plan
from mini_r1.preflight.prompts import check_prompts
from mini_r1.preflight.rehearsal import rehearse
from mini_r1.preflight.space import check_disk, check_memory
from mini_r1.preflight.start import check_start
from mini_r1.program.problems import ProblemError, UserError
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.batches import BATCH_KEYS, BatchPlan, check_own_groups, plan_batches
from mini_r1.recipe.contradictions import say_without_effect
from mini_r1.recipe.values import check_rewards, check_values, with_defaults
from mini_r1.runs.folder import examine_output, output_path
from mini_r1.runs.identity import RunRecord, record_run
from mini_r1.runs.lock import check_unlocked


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
    # The other checks go on with the defaults in place of bad values, so that all problems are reported at once.
    script, training, model = with_defaults(findings.problems, script, training, model)
    launch = read_launch(environ, training.deepspeed)
    plan = Plan(script, training, model, launch, generation_kind(training), visible)
    batches = _check_batches(plan, findings)
    _check_gpus(plan, findings)
    began = _check_output(plan, findings)
    check_packages(plan, environ, findings)
    remote = uses_hub(str(model.model_name_or_path), script) or training.push_to_hub
    with offline_if_unreachable() if remote else nullcontext(True) as reachable:
        if not reachable:
            note = "the Hugging Face Hub can't be reached: only what this machine has already can be used"
            findings.notes.append(note)
        config, shape = check_model(plan, findings)
        if shape is not None:
            step = step_of(script, training, model)
            check_memory(plan, shape, step, findings)
            check_disk(plan, shape, step, findings)
        check_prompts(plan, batches, config, began, findings)
        check_start(plan, findings)
        account, problem = check_hub_access(training)
    findings.sections += [("Hub", [("push", account)])] if account else []
    findings.problems += [problem] if problem else []
    _estimate_time(plan, findings)
    findings.summary = _summary(plan, batches)
    return findings


def _check_batches(plan: Plan, findings: Findings) -> BatchPlan:
    """The arithmetic of a step, and what else TRL's GRPOConfig refuses; not of sizes that are bad by themselves."""
    batches, problems = plan_batches(plan.training, plan.launch.processes)
    findings.sections.append(("Batch", batches.rows()))
    if not {problem.name for problem in findings.problems} & BATCH_KEYS:
        refused = None if problems else rehearse(plan.training, plan.launch.processes, plan.script.method)
        split = None if problems else check_own_groups(batches, plan.script.resample_uniform_groups)
        findings.problems += [*problems, *(problem for problem in (refused, split) if problem)]
    return batches


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
        if error.problem not in findings.problems:  # an unknown task has been reported before
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
        *([("generation", _generation(plan, generation))] if plan.script.method == "grpo" else []),
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
    if plan.script.method == "sft":
        size = f"{batches.completions_per_step} demonstrations a step"
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
