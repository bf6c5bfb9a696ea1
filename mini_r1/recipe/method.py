"""How a policy learns, `method` in a recipe: by rewards (GRPO), or before that from demonstrations (SFT).

Both have the same keys, those of transformers' TrainingArguments and of ModelConfig, so that one recipe becomes the
other by its method. A demonstration counts as a group of one completion, which makes the arithmetic of a step, of the
number of steps and of memory the same; the keys of GRPOConfig that are about rewards and generation are idle.
"""

from dataclasses import fields
from typing import Any

from trl import GRPOConfig, SFTConfig

from mini_r1.recipe.arguments import Method


def _names(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind) if field.init)


# Keys that mean the same in both; with another default in TRL's SFTConfig, or only another list of names.
SHARED = (_names(GRPOConfig) & _names(SFTConfig)) - {"loss_type", "remove_unused_columns"}
LENGTHS_AND_PROMPTS = {"max_completion_length", "chat_template_kwargs"}
OWN_IDLE = {
    *("reward_funcs", "length_buckets", "share_prompts", "skip_zero_advantage", "skip_old_logps"),
    *("resample_uniform_groups", "vllm_gpus", "vllm_server_args", "vllm_request_timeout", "samples_per_step"),
}
IDLE_IN_SFT = (_names(GRPOConfig) - SHARED - LENGTHS_AND_PROMPTS - {"remove_unused_columns"}) | OWN_IDLE
# What the rooms around the trainer then read of the idle keys.
NEUTRAL = {
    "num_generations": 1,
    "num_generations_eval": 1,
    "steps_per_generation": 1,
    "generation_batch_size": None,
    "num_iterations": 1,
    "use_vllm": False,
    "beta": 0.0,
    "loss_type": "nll",
}
LEARNING_RATE = 2e-5  # TRL's default for SFT


def idle_keys(method: Method) -> frozenset[str]:
    """The keys that have no effect with a method."""
    return IDLE_IN_SFT if method == "sft" else frozenset()


def build_config(training: GRPOConfig, method: Method) -> GRPOConfig:
    """The configuration as TRL builds it, from the values of a recipe: of its class for the method.

    One for SFT also has the keys of GRPOConfig as attributes, for the rooms around the trainer.
    """
    kind = config_class(method)
    built: Any = kind(**config_values(training, method))
    for name in _names(GRPOConfig) - _names(kind):
        setattr(built, name, getattr(training, name))
    return built


def config_class(method: Method) -> Any:
    """The class of TRL that a method's trainer takes."""
    return SFTConfig if method == "sft" else GRPOConfig


def config_values(training: GRPOConfig, method: Method) -> dict[str, Any]:
    """The arguments of that class."""
    if method == "grpo":
        return {name: getattr(training, name) for name in _names(GRPOConfig)}
    values = {name: getattr(training, name) for name in SHARED}
    return values | {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}  # they are tokens already
