"""What each key of a recipe may be, beyond its type: the tables of ranges and names.

TRL and transformers check few of these. What they let through trains on noise or ends in a library's traceback after
minutes of loading.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Range:
    """What a key allows, in words and as a test; `names` are the allowed ones, if there are only some."""

    allowed: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def as_list(value: Any) -> list[Any]:
    """A list as it is, anything else as the only member of one."""
    return value if isinstance(value, list) else [value]


def at_least(low: float, high: float = math.inf) -> Range:
    """A finite number from `low` to `high`, both included."""
    words = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
    return Range(f"a number {words}", lambda value: is_number(value) and low <= value <= high)


def above(low: float, high: float = math.inf) -> Range:
    """A finite number greater than `low`, up to `high`."""
    words = "" if high == math.inf else f" and at most {high}"
    return Range(f"a number greater than {low}{words}", lambda value: is_number(value) and low < value <= high)


def below(high: float) -> Range:
    """A number from 0 up to, but not including, `high`."""
    return Range(f"a number of at least 0 and below {high}", lambda value: is_number(value) and 0 <= value < high)


def one_of(*names: str) -> Range:
    """One of some names."""
    return Range(f"one of {', '.join(names)}", lambda value: value in names, names)


def each_of(*names: str) -> Range:
    """One or several of some names; "none" and "all" stand alone."""

    def holds(value: Any) -> bool:
        parts = as_list(value)
        return all(part in names for part in parts) and (len(parts) == 1 or not {"none", "all"} & set(parts))

    return Range(f"one or more of {', '.join(names)}", holds, names)


ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
# The trackers of `report_to` (transformers' integrations), with the module and distribution that each needs, if any.
TRACKERS: dict[str, tuple[str, str] | None] = {
    **{name: (name, name) for name in ("tensorboard", "wandb", "trackio", "mlflow", "clearml", "codecarbon")},
    **{name: (name, name) for name in ("dvclive", "neptune", "swanlab")},
    "comet_ml": ("comet_ml", "comet-ml"),
    "dagshub": ("dagshub", "dagshub mlflow"),
    "flyte": ("flytekit", "flytekit"),
    "azure_ml": ("azureml", "azureml-core"),
    "kubeflow": None,
}
TEXT = Range("a text that is not empty", lambda value: isinstance(value, str) and value.strip() != "")
TEXTS = Range("texts that are not empty", lambda value: bool(value) and all(map(TEXT.holds, as_list(value))))
MAPPING = Range("a mapping, such as {key: value}", lambda value: isinstance(value, dict))
FLAG = Range("true or false", lambda value: isinstance(value, bool))
SEED = at_least(0, 2**32 - 1)  # NumPy takes no larger one
COUNT, NOT_NEGATIVE, POSITIVE, SHARE = at_least(1), at_least(0), above(0), at_least(0, 1)
PORT = at_least(1, 65535)
WHOLE_STEPS = Range(
    "a whole number of steps, or a share of all steps between 0 and 1",
    lambda value: is_number(value) and value > 0 and (value < 1 or value == int(value)),
)


def _each(allowed: Range, names: str) -> dict[str, Range]:
    return dict.fromkeys(names.split(), allowed)


# Keys of which every value of their type will do (booleans, enumerations) are not here.
RANGES: dict[str, Range] = {
    **_each(
        TEXT,
        "task dataset_id_or_path dataset_split dataset_revision chat_template tokenizer_name_or_path vllm_server_args "
        "plan_accelerate_config model_name_or_path model_revision output_dir vllm_server_host run_name hub_model_id",
    ),
    **_each(TEXTS, "reward_funcs vllm_gpus lora_target_modules"),
    **_each(
        MAPPING,
        "task_config gradient_checkpointing_kwargs lr_scheduler_kwargs generation_kwargs chat_template_kwargs",
    ),
    **_each(SEED, "split_seed seed data_seed"),
    **_each(
        COUNT,
        "max_samples max_prompt_length eval_puzzles length_buckets plan_processes plan_processes_per_machine lora_r "
        "lora_alpha per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps "
        "torch_empty_cache_steps dataloader_prefetch_factor ddp_bucket_cap_mb ddp_timeout num_generations_eval "
        "generation_batch_size steps_per_generation num_iterations max_completion_length max_tool_calling_iterations "
        "ref_model_sync_steps vllm_max_model_length vllm_tensor_parallel_size eval_accumulation_steps save_total_limit",
    ),
    **_each(
        NOT_NEGATIVE,
        "samples_per_step learning_rate warmup_steps weight_decay adam_epsilon max_grad_norm neftune_noise_alpha "
        "resample_uniform_groups dataloader_num_workers top_k beta epsilon epsilon_high vespo_k_pos vespo_lambda_pos "
        "vespo_k_neg vespo_lambda_neg router_aux_loss_coef entropy_coef entropy_coef_min entropy_coef_max "
        "entropy_coef_delta entropy_target vllm_importance_sampling_clip_min num_completions_to_print eval_delay",
    ),
    **_each(
        POSITIVE,
        "vllm_request_timeout gpu_memory_gb seconds_per_step num_train_epochs temperature repetition_penalty delta "
        "sapo_temperature_neg sapo_temperature_pos off_policy_mask_threshold vllm_server_timeout "
        "vllm_importance_sampling_cap vllm_importance_sampling_clip_max",
    ),
    **_each(below(1), "lora_dropout adam_beta1 adam_beta2 label_smoothing_factor"),
    **_each(SHARE, "min_p top_entropy_quantile ref_model_mixup_alpha"),
    **_each(above(0, 1), "top_p vllm_gpu_memory_utilization"),
    **_each(PORT, "vllm_server_port vllm_group_port"),
    **_each(WHOLE_STEPS, "logging_steps eval_steps save_steps"),
    "test_size": Range("a share between 0 and 1, such as 0.1", lambda value: 0 < value < 1),
    "system_prompt": Range('a text, or "" for none', lambda value: value == "" or TEXT.holds(value)),
    "attn_implementation": Range(
        f"one of {', '.join(ATTENTION)}, or a kernel of the Hub (owner/name)",
        lambda value: value.rpartition("|")[2] in ATTENTION or "/" in value,
        ATTENTION,
    ),
    "model_init_kwargs": Range(
        "left out: dtype, attn_implementation and model_revision say it all", lambda value: False
    ),
    "max_steps": Range("a whole number of at least 1, or -1 for all epochs", lambda value: value == -1 or value > 0),
    "num_generations": at_least(2),
    "local_rank": at_least(-1),
    "pad_to_multiple_of": Range(
        "a number of at least 1, or auto", lambda value: value == "auto" or (is_number(value) and value >= 1)
    ),
    "reward_weights": Range("a list of finite numbers", lambda value: all(map(is_number, value))),
    "vllm_server_base_url": Range(
        "an address such as http://node7:8000", lambda value: value.startswith(("http://", "https://"))
    ),
    "report_to": each_of("none", "all", *sorted(TRACKERS)),
    "lora_task_type": one_of("CAUSAL_LM"),
    "bnb_4bit_quant_type": one_of("nf4", "fp4"),
    "torch_compile_mode": one_of("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "loss_type": one_of("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": one_of("token", "sequence"),
    "multi_objective_aggregation": one_of("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": one_of("server", "colocate"),
    "vllm_model_impl": one_of("vllm", "transformers", "auto"),
    "vllm_importance_sampling_mode": one_of("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
