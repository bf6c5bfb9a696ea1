"""Keys of a recipe that contradict each other: refused, or only reported where the run still makes sense.

TRL and transformers find some of these after minutes of loading, some at the first evaluation, and some never: they
take one of the two keys and leave the other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from trl import GRPOConfig, ModelConfig

from mini_r1.program.problems import Problem, shown
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.batches import is_on_policy
from mini_r1.recipe.method import idle_keys
from mini_r1.tasks.task import FORMAT, SOLVED

# What an evaluation in a run has, whatever the task and its rewards.
METRICS = {"grpo": ("reward", SOLVED, FORMAT), "sft": ("loss", "mean_token_accuracy")}
ON_PLATEAU = ("reduce_lr_on_plateau", "greedy")  # schedules that follow a metric


def find_contradictions(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> list[Problem]:
    """What can't be done as it is written."""
    if script.method == "sft":
        found = (_check_precision(training, model), *_check_best(script, training))
        return [problem for problem in found if problem]
    skipping = _check_skipping(training) if script.skip_zero_advantage else None
    sharing = _check_sharing(training) if script.share_prompts else None
    weights = _check_weights(training) if script.skip_old_logps else None
    resampling = _check_resampling(script, training) if script.resample_uniform_groups else None
    losses = _check_losses(training, model)
    best = _check_best(script, training)
    found = (_check_precision(training, model), losses, skipping, sharing, weights, resampling, *best)
    return [problem for problem in found if problem]


def _text(value: Any) -> str:
    """The name of an enumeration's member, such as a strategy, or of a plain text."""
    return str(getattr(value, "value", value))


def _check_precision(training: GRPOConfig, model: ModelConfig) -> Problem | None:
    for name in ("fp16", "fp16_full_eval"):
        other = name.replace("fp16", "bf16")
        if getattr(training, name) and getattr(training, other):
            return Problem(name, "true", f"one of {name} and {other}", f"leave {name} out", f"{other} is true, too")
    if training.fp16 and model.dtype == "float16" and not model.use_peft:
        cause = "fp16 is true, and its gradients can be scaled only for float32 weights"
        return Problem("dtype", "float16", "float32 with fp16", "set dtype: float32", cause)
    for name in ("load_in_4bit", "load_in_8bit"):
        if getattr(model, name) and not model.use_peft:
            cause = "use_peft is false, and weights of 4 or 8 bits can't be trained themselves"
            return Problem(name, "true", "an adapter to train", f"set use_peft: true, or {name}: false", cause)
    return None


def _check_losses(training: GRPOConfig, model: ModelConfig) -> Problem | None:
    """What TRL's trainer refuses after the model is loaded, or only warns of, or leaves out."""
    level = {"luspo": "sequence", "vespo": "token"}.get(training.loss_type)
    if level and training.importance_sampling_level != level:
        allowed = f"{level} with loss_type: {training.loss_type}"
        fix = f"set importance_sampling_level: {level}"
        return Problem("importance_sampling_level", training.importance_sampling_level, allowed, fix)
    mode = training.vllm_importance_sampling_mode
    corrected = training.use_vllm and training.vllm_importance_sampling_correction
    if training.loss_type == "vespo" and corrected and not mode.startswith("token"):
        allowed = "token_truncate or token_mask with loss_type: vespo"
        return Problem("vllm_importance_sampling_mode", mode, allowed, "set token_truncate")
    if training.sync_ref_model and not training.beta:
        return Problem("sync_ref_model", "true", "a reference model to synchronise", "set beta: 0.001", "beta is 0")
    if training.sync_ref_model and model.use_peft:
        cause = "use_peft is true, and the reference model is then the base itself"
        return Problem("sync_ref_model", "true", "training of the whole model", "set sync_ref_model: false", cause)
    if training.delta is not None and training.delta <= 1 + training.epsilon:
        allowed = f"more than 1 + epsilon = {1 + training.epsilon:g}"
        cause = "the ratio is clipped below that already, for the other sign of the advantage"
        return Problem("delta", training.delta, allowed, f"set delta: {2 + training.epsilon:g}, or leave it out", cause)
    if training.entropy_coef_min > training.entropy_coef_max:
        allowed = f"at most entropy_coef_max = {training.entropy_coef_max}"
        return Problem("entropy_coef_min", training.entropy_coef_min, allowed, "swap the two")
    return None


def _check_skipping(training: GRPOConfig) -> Problem | None:
    """What would need the log-probabilities of the completions that skip_zero_advantage leaves out."""
    needs = {
        "beta": (training.beta, 0.0),
        "entropy_coef": (training.entropy_coef, 0.0),
        "use_adaptive_entropy": (training.use_adaptive_entropy, False),
        "top_entropy_quantile": (training.top_entropy_quantile, 1.0),
        "use_liger_kernel": (training.use_liger_kernel, False),
    }
    for name, (value, allowed) in needs.items():
        if value != allowed:
            cause = f"{name} is {shown(value)}, which takes every completion"
            fix = f"set {name}: {shown(allowed)}, or skip_zero_advantage: false"
            return Problem("skip_zero_advantage", "true", f"{name}: {shown(allowed)} with it", fix, cause)
    return None


def _check_sharing(training: GRPOConfig) -> Problem | None:
    """What would not leave keys and values of a prompt for its completions."""
    causes = {
        "gradient_checkpointing": "which computes layers again, without the keys and values of a prompt",
        "use_liger_kernel": "whose loss calls the model by itself",
    }
    for name, why in causes.items():
        if getattr(training, name):
            fix = f"set {name}: false, or share_prompts: false"
            return Problem("share_prompts", "true", f"{name}: false with it", fix, f"{name} is true, {why}")
    return None


def _check_weights(training: GRPOConfig) -> Problem | None:
    """What skip_old_logps can't do without the loss in which it weighs."""
    if not training.use_liger_kernel:
        return None
    fix = "set use_liger_kernel: false, or skip_old_logps: false"
    cause = "use_liger_kernel is true, and its loss has no log-probabilities to weigh by"
    return Problem("skip_old_logps", "true", "use_liger_kernel: false with it", fix, cause)


def _check_resampling(script: ScriptArguments, training: GRPOConfig) -> Problem | None:
    """With what resample_uniform_groups could not tell a group that teaches nothing, or would not do what is asked."""
    others = "the advantages of a group then depend on the other groups"
    refused = {  # name: (the value that is refused, one that is not, why)
        "scale_rewards": ("batch", "group", others),
        "multi_objective_aggregation": ("normalize_then_sum", "sum_then_normalize", others),
        "shuffle_dataset": (False, True, "fresh problems are drawn at random, not in the order of the data"),
    }
    for name, (value, instead, why) in refused.items():
        if getattr(training, name) == value:
            cause = f"{name} is {shown(value)}, and {why}"
            fix = f"set {name}: {shown(instead)}, or resample_uniform_groups: 0"
            allowed = f"{name}: {shown(instead)} with it"
            return Problem("resample_uniform_groups", script.resample_uniform_groups, allowed, fix, cause)
    return None


def _check_best(script: ScriptArguments, training: GRPOConfig) -> Iterator[Problem]:
    """What follows a metric of the evaluations: the best checkpoint, and schedules that wait for a plateau."""
    schedule = _text(training.lr_scheduler_type)
    users = {
        "load_best_model_at_end": "true" if training.load_best_model_at_end else "",
        "save_strategy": "best" if _text(training.save_strategy) == "best" else "",
        "lr_scheduler_type": schedule if schedule in ON_PLATEAU else "",
    }
    users = {key: value for key, value in users.items() if value}
    used_by = " and ".join(f"{key}: {value}" for key, value in users.items())
    if not users:
        return
    if _text(training.eval_strategy) == "no":
        for key, value in users.items():
            fix = "set eval_strategy: steps, with eval_steps"
            yield Problem(key, value, "evaluations to go by", fix, "eval_strategy is no")
    name, metrics = training.metric_for_best_model, METRICS[script.method]
    if (name or "loss").removeprefix("eval_") not in metrics:
        cause = "GRPO's loss does not say how good a policy is" if name in (None, "loss", "eval_loss") else ""
        allowed = f"one of {', '.join(metrics)} with {used_by}"
        yield Problem("metric_for_best_model", shown(name), allowed, f"set metric_for_best_model: {metrics[0]}", cause)
    if script.method == "sft":
        return
    if training.greater_is_better is False:
        yield Problem("greater_is_better", "false", f"true, or left out, with {used_by}", "leave it out")
    kwargs: Any = training.lr_scheduler_kwargs
    mode = kwargs.get("mode") if isinstance(kwargs, dict) else None
    if schedule in ON_PLATEAU and mode != "max":
        cause = "the schedule would take a rising reward for a failure"
        fix = "set lr_scheduler_kwargs: {mode: max}"
        yield Problem("lr_scheduler_kwargs", shown(kwargs), f"mode: max with {schedule}", fix, cause)


# --- what has no effect --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dependents:
    """Keys that only do something while another one is set so.

    Attributes:
        switch: the other key.
        wanted: its value, for a message.
        keys: the names of the dependents, or what they begin with.
        on: whether the switch, a value, is on.
    """

    switch: str
    wanted: str
    keys: tuple[str, ...]
    on: Callable[[Any], bool] = bool


DEPENDENTS = (
    Dependents("use_peft", "true", ("lora_", "use_rslora", "use_dora")),
    Dependents("load_in_4bit", "true", ("bnb_4bit_", "use_bnb_nested_quant")),
    Dependents("use_vllm", "true", ("vllm_", "skip_old_logps")),
    Dependents("sync_ref_model", "true", ("ref_model_",)),
    Dependents("use_adaptive_entropy", "true", ("entropy_coef_", "entropy_target")),
    Dependents("push_to_hub", "true", ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push")),
    Dependents("gradient_checkpointing", "true", ("gradient_checkpointing_kwargs",)),
    Dependents("loss_type", "sapo", ("sapo_",), lambda value: value == "sapo"),
    Dependents("loss_type", "vespo", ("vespo_",), lambda value: value == "vespo"),
    Dependents("eval_strategy", "steps", ("eval_steps",), lambda value: _text(value) == "steps"),
)


def say_without_effect(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> list[str]:
    """Lines on keys that are set and do nothing, or less than they seem to.

    A switch that the recipe itself turns off is no surprise, and needs no line.
    """
    unused = idle_keys(script.method)
    given = {name: value for name, value in script.given.items() if name not in unused}
    values = {name: getattr(part, name) for part in (training, model) for name in vars(part)}
    lines = []
    if idle := [name for name in script.given if name in unused]:
        lines.append(f"{', '.join(idle)} {_has(idle)} no effect with method: {script.method}")
    for rule in DEPENDENTS:
        idle = [name for name in given if name.startswith(rule.keys)]
        if idle and rule.switch not in given and not rule.on(values[rule.switch]):
            lines.append(f"{', '.join(idle)} {_has(idle)} no effect without {rule.switch}: {rule.wanted}")
    if script.skip_old_logps and training.use_vllm and not is_on_policy(training):
        lines.append(
            "skip_old_logps has no effect: a generation serves several updates, since gradient_accumulation_steps is "
            f"{training.gradient_accumulation_steps}, steps_per_generation {training.steps_per_generation} and "
            f"num_iterations {training.num_iterations}"
        )
    return [*lines, *_say_of_length(given, training)]


def _has(keys: list[str]) -> str:
    return "has" if len(keys) == 1 else "have"


def _say_of_length(given: dict[str, Any], training: GRPOConfig) -> Iterator[str]:
    """What the number of steps makes of other keys."""
    steps, warmup, schedule = training.max_steps, training.warmup_steps, _text(training.lr_scheduler_type)
    if steps > 0 and "num_train_epochs" in given:
        yield f"num_train_epochs has no effect: max_steps is {steps}"
    if "warmup_steps" in given and warmup and schedule in ("constant", *ON_PLATEAU):
        fix = "; constant_with_warmup has one" if schedule == "constant" else ""
        yield f"warmup_steps has no effect: lr_scheduler_type {schedule} has no warm-up{fix}"
    elif warmup >= 1 and 0 < steps <= warmup:
        yield f"the run ends while it warms up, below its learning_rate: warmup_steps is {warmup:g}, max_steps {steps}"
    if schedule in ("constant", "constant_with_warmup") and training.lr_scheduler_kwargs:
        yield f"lr_scheduler_kwargs has no effect: lr_scheduler_type {schedule} takes none"
    if 0 < steps <= training.eval_delay and _text(training.eval_strategy) != "no":
        yield f"there is no evaluation before the end: eval_delay is {training.eval_delay:g}, max_steps {steps}"
    if training.save_only_model and _text(training.save_strategy) != "no":
        yield "save_only_model is true: the checkpoints hold no optimizer, and a run that is stopped can't be resumed"
