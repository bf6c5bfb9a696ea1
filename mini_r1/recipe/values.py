"""What each key of a recipe may be, beyond its type: one table of ranges and names.

TRL and transformers check few of these. What they let through trains on noise or ends in a library's traceback after
minutes of loading, so a value outside its range is refused before anything is loaded.
"""

import copy
from collections.abc import Iterable
from typing import Any

from trl import GRPOConfig, ModelConfig

from mini_r1.program.problems import Problem, nearest, shown
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.contradictions import find_contradictions
from mini_r1.recipe.generation_kwargs import check_generation_kwargs
from mini_r1.recipe.keys import Key, keys_of
from mini_r1.recipe.ranges import Range, above, as_list, at_least, below, each_of, is_number, one_of
from mini_r1.recipe.trackers import TRACKERS
from mini_r1.tasks.registry import TaskError, rewards_of, task_of

MAX_SEED = 2**32 - 1  # NumPy takes no larger one
ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
IMPORTANCE_SAMPLING = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


TEXT = Range("a text that is not empty", lambda value: isinstance(value, str) and value.strip() != "")
TEXTS = Range("texts that are not empty", lambda value: bool(value) and all(map(TEXT.holds, as_list(value))))
MAPPING = Range("a mapping, such as {key: value}", lambda value: isinstance(value, dict))
SEED = at_least(0, MAX_SEED)
COUNT = at_least(1)
PORT = at_least(1, 65535)
WHOLE_STEPS = Range(
    "a whole number of steps, or a share of all steps between 0 and 1",
    lambda value: is_number(value) and value > 0 and (value < 1 or value == int(value)),
)


# Keys of which every value of their type will do (booleans, enumerations) are not here.
RANGES: dict[str, Range] = {
    # Mini-R1's own
    "task": TEXT,
    "reward_funcs": TEXTS,
    "task_config": MAPPING,
    "dataset_id_or_path": TEXT,
    "dataset_split": TEXT,
    "dataset_revision": TEXT,
    "tokenizer_name_or_path": TEXT,
    "max_samples": COUNT,
    "split_seed": SEED,
    "test_size": Range("a share between 0 and 1, such as 0.1", lambda value: 0 < value < 1),
    "chat_template": TEXT,
    "system_prompt": Range('a text, or "" for none', lambda value: value == "" or TEXT.holds(value)),
    "max_prompt_length": COUNT,
    "eval_puzzles": COUNT,
    "length_buckets": COUNT,
    "vllm_server_args": TEXT,
    "vllm_request_timeout": above(0),
    "samples_per_step": at_least(0),
    "vllm_gpus": TEXTS,
    "plan_accelerate_config": TEXT,
    "plan_processes": COUNT,
    "plan_processes_per_machine": COUNT,
    "gpu_memory_gb": above(0),
    "seconds_per_step": above(0),
    "gpu_hour_rate": above(0),
    # the model
    "model_name_or_path": TEXT,
    "model_revision": TEXT,
    "attn_implementation": Range(
        f"one of {', '.join(ATTENTION)}, or a kernel of the Hub (owner/name)",
        lambda value: value.rpartition("|")[2] in ATTENTION or "/" in value,
        ATTENTION,
    ),
    "model_init_kwargs": Range(
        "left out: dtype, attn_implementation and model_revision say it all", lambda value: False
    ),
    "lora_r": COUNT,
    "lora_alpha": COUNT,
    "lora_dropout": below(1),
    "lora_target_modules": TEXTS,
    "lora_task_type": one_of("CAUSAL_LM"),
    "bnb_4bit_quant_type": one_of("nf4", "fp4"),
    # optimisation
    "output_dir": TEXT,
    "max_steps": Range("a whole number of at least 1, or -1 for all epochs", lambda value: value == -1 or value > 0),
    "num_train_epochs": above(0),
    "learning_rate": at_least(0),
    "warmup_steps": at_least(0),
    "weight_decay": at_least(0),
    "adam_beta1": below(1),
    "adam_beta2": below(1),
    "adam_epsilon": at_least(0),
    "max_grad_norm": at_least(0),
    "seed": SEED,
    "data_seed": SEED,
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "gradient_checkpointing_kwargs": MAPPING,
    "lr_scheduler_kwargs": MAPPING,
    "label_smoothing_factor": below(1),
    "neftune_noise_alpha": at_least(0),
    "torch_compile_mode": one_of("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "torch_empty_cache_steps": COUNT,
    "dataloader_num_workers": at_least(0),
    "dataloader_prefetch_factor": COUNT,
    "ddp_bucket_cap_mb": COUNT,
    "local_rank": at_least(-1),
    "ddp_timeout": COUNT,
    # GRPO
    "num_generations": at_least(2),
    "num_generations_eval": COUNT,
    "generation_batch_size": COUNT,
    "steps_per_generation": COUNT,
    "num_iterations": COUNT,
    "max_completion_length": COUNT,
    "temperature": above(0),
    "top_p": above(0, 1),
    "top_k": at_least(0),
    "min_p": at_least(0, 1),
    "repetition_penalty": above(0),
    "generation_kwargs": MAPPING,
    "chat_template_kwargs": MAPPING,
    "beta": at_least(0),
    "epsilon": at_least(0),
    "epsilon_high": at_least(0),
    "delta": above(0),
    "sapo_temperature_neg": above(0),
    "sapo_temperature_pos": above(0),
    "vespo_k_pos": at_least(0),
    "vespo_lambda_pos": at_least(0),
    "vespo_k_neg": at_least(0),
    "vespo_lambda_neg": at_least(0),
    "router_aux_loss_coef": at_least(0),
    "entropy_coef": at_least(0),
    "entropy_coef_min": at_least(0),
    "entropy_coef_max": at_least(0),
    "entropy_coef_delta": at_least(0),
    "entropy_target": at_least(0),
    "max_tool_calling_iterations": COUNT,
    "pad_to_multiple_of": Range(
        "a number of at least 1, or auto", lambda value: value == "auto" or (is_number(value) and value >= 1)
    ),
    "top_entropy_quantile": at_least(0, 1),
    "ref_model_mixup_alpha": at_least(0, 1),
    "ref_model_sync_steps": COUNT,
    "off_policy_mask_threshold": above(0),
    "loss_type": one_of("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": one_of("token", "sequence"),
    "multi_objective_aggregation": one_of("sum_then_normalize", "normalize_then_sum"),
    "reward_weights": Range("a list of finite numbers", lambda value: all(map(is_number, value))),
    # vLLM
    "vllm_mode": one_of("server", "colocate"),
    "vllm_model_impl": one_of("vllm", "transformers", "auto"),
    "vllm_server_host": TEXT,
    "vllm_server_base_url": Range(
        "an address such as http://node7:8000", lambda value: value.startswith(("http://", "https://"))
    ),
    "vllm_server_port": PORT,
    "vllm_group_port": PORT,
    "vllm_server_timeout": above(0),
    "vllm_gpu_memory_utilization": above(0, 1),
    "vllm_max_model_length": COUNT,
    "vllm_tensor_parallel_size": COUNT,
    "vllm_importance_sampling_mode": one_of(*IMPORTANCE_SAMPLING),
    "vllm_importance_sampling_cap": above(0),
    "vllm_importance_sampling_clip_max": above(0),
    "vllm_importance_sampling_clip_min": at_least(0),
    # what is kept and shown
    "logging_steps": WHOLE_STEPS,
    "eval_steps": WHOLE_STEPS,
    "num_completions_to_print": at_least(0),
    "eval_delay": at_least(0),
    "eval_accumulation_steps": COUNT,
    "save_steps": WHOLE_STEPS,
    "save_total_limit": COUNT,
    "report_to": each_of("none", "all", *sorted(TRACKERS)),
    "run_name": TEXT,
    "hub_model_id": TEXT,
}
_KEYS = keys_of(ScriptArguments, GRPOConfig, ModelConfig)


def check_values(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> list[Problem]:
    """Every value that is out of its range or contradicts another one.

    Args:
        training: read with `read_recipe`, so that its values are those of the recipe.
    """
    values = {name: getattr(part, name) for part in (script, training, model) for name in RANGES if hasattr(part, name)}
    problems = [
        _problem(_KEYS[name], value)
        for name, value in values.items()
        if value is not None and not RANGES[name].holds(value)
    ]
    return problems + find_contradictions(training, model) + check_generation_kwargs(training)


def check_rewards(script: ScriptArguments, training: GRPOConfig) -> list[Problem]:
    """The task and each reward are there, and each reward has a weight."""
    try:
        names = list(rewards_of(task_of(script.task, script.task_config), script.reward_funcs))
    except TaskError as error:
        return [error.problem]
    weights = training.reward_weights
    if weights is None or len(weights) == len(names):
        return []
    allowed = f"{len(names)} number{'s' if len(names) > 1 else ''}, for {' and '.join(names)} in this order"
    return [Problem("reward_weights", shown(weights), allowed, f"set reward_weights: {[1.0] * len(names)}")]


def with_defaults(problems: Iterable[Problem], *parts: Any) -> tuple[Any, ...]:
    """Copies of the parts of a recipe in which the keys with a problem have their defaults, but for those of the task.

    With another task in its place, the other keys would be wrong for it.
    """
    copies = tuple(map(copy.copy, parts))
    for name in ({problem.name for problem in problems} & set(_KEYS)) - {"task", "task_config", "reward_funcs"}:
        for part in copies:
            if hasattr(part, name):
                setattr(part, name, _KEYS[name].default)
    return copies


def _problem(key: Key, value: Any) -> Problem:
    default = "leave it out" if key.default is None else f"set {key.name}: {shown(key.default)}, the default"
    wrong = next((part for part in as_list(value) if part not in RANGES[key.name].names), "")
    near = nearest(str(wrong), RANGES[key.name].names)
    return Problem(key.name, shown(value) or '""', RANGES[key.name].allowed, f"set {near}" if near else default)
