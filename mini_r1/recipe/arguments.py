"""Mini-R1's own keys of a recipe, each with its group and its help. This module imports quickly."""

# ruff: noqa: RUF009  (the calls in the dataclass make its fields)

from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, get_args

from mini_r1.prompts.settings import PromptStyle

# The concerns by which `--help` and receipes/KEYS.md group the keys, in their order.
Group = Literal[
    "Task and data",
    "Prompts",
    "Rewards",
    "Training",
    "Generation",
    "Evaluation and samples",
    "Checking and planning",
]
Method = Literal["grpo", "sft"]
# The most used keys of TRL's GRPOConfig and ModelConfig, by the same concerns.
TRL_KEYS: dict[Group, tuple[str, ...]] = {
    "Prompts": ("chat_template_kwargs",),
    "Rewards": ("reward_weights", "scale_rewards"),
    "Training": (
        *("model_name_or_path", "output_dir", "max_steps", "learning_rate", "seed", "num_generations"),
        *("per_device_train_batch_size", "gradient_accumulation_steps", "loss_type", "beta", "use_peft"),
        *("load_in_4bit", "save_steps", "resume_from_checkpoint"),
    ),
    "Generation": ("max_completion_length", "temperature", "use_vllm", "vllm_mode"),
    "Evaluation and samples": ("eval_strategy", "eval_steps", "report_to"),
}


def _key(group: Group, default: Any, text: str) -> Any:
    """A field with its concern and its help."""
    return field(default=default, metadata={"group": group, "help": text})


_data, _prompts, _rewards = partial(_key, "Task and data"), partial(_key, "Prompts"), partial(_key, "Rewards")
_training, _generation = partial(_key, "Training"), partial(_key, "Generation")
_evaluation, _planning = partial(_key, "Evaluation and samples"), partial(_key, "Checking and planning")


@dataclass
class ScriptArguments:
    """What Mini-R1 adds to the keys of TRL: the task and its data, the prompt's limit and the samples kept."""

    task: str = _data("countdown", "What is learned: the name of a task, or package.module:Class for one of your own")
    task_config: dict[str, Any] | None = _data(None, "The task's own settings, as a mapping")
    dataset_id_or_path: str | None = _data(
        None,
        "Where the problems come from: a Hub id, a local folder, a JSON, JSONL, CSV or Parquet file, or "
        "generated:WORLD. Default: the task's own source",
    )
    dataset_split: str = _data("train", "Which split of the Hub dataset or folder is loaded")
    dataset_revision: str | None = _data(None, "Branch, tag or commit of the Hub dataset")
    max_samples: int = _data(
        50_000,
        "Maximum number of problems, training and held-out together. A larger dataset is sampled at random",
    )
    test_size: float = _data(0.1, "Share of these problems that is held out for evaluation")
    split_seed: int = _data(
        42, "Seed for generating or drawing problems, and for splitting them into training and held-out ones"
    )
    prompt_style: PromptStyle = _prompts(
        "chat", "How the prompt is written: chat uses a chat template, base writes plain text for a base model"
    )
    chat_template: str | None = _prompts(None, "File with a chat template. Default: the tokenizer's own template")
    system_prompt: str | None = _prompts(
        None, 'Text in front of the question, or "" for none. Default: the task\'s own text'
    )
    max_prompt_length: int = _prompts(256, "Problems whose prompt has more tokens than this are dropped")
    tokenizer_name_or_path: str | None = _prompts(None, "Folder or Hub id of a tokenizer that replaces the model's own")
    reward_funcs: list[str] | None = _rewards(
        None, "Names of the task's rewards, or package.module.function. Default: the task's usual rewards"
    )
    method: Method = _training(
        "grpo",
        "How the policy learns: grpo by rewards, or sft from the task's demonstrations, as a cold start before grpo."
        " With sft the learning rate is 2e-5 unless it is set, and keys of rewards and generation have no effect",
    )
    length_buckets: int = _training(
        1,
        "Number of parts, sorted by completion length, in which a batch's log-probabilities are computed. More parts"
        " save padding; the loss is the same",
    )
    share_prompts: bool = _training(
        False,
        "Read a prompt once for all of its completions in the loss, and where transformers generates. The gradient is"
        " the same. Saves most where prompts are long; not with gradient_checkpointing",
    )
    skip_zero_advantage: bool = _training(
        False,
        "Leave completions with an advantage of 0 (those of a group with equal rewards) out of forward and backward."
        " The gradient is the same; the logged entropy is that of the other completions",
    )
    skip_old_logps: bool = _training(
        False,
        "Weigh what vLLM wrote by the log-probabilities of the loss, without the pass before the loss that TRL computes"
        " them in. The gradient is the same. Where a generation serves several updates, that pass is still needed, and"
        " is not left out",
    )
    resample_uniform_groups: int = _training(
        0,
        "Maximum number of further tries in which a generation's groups with equal rewards, which teach nothing, are"
        " replaced by groups of fresh problems, drawn at random (DAPO's dynamic sampling); 0 is off. The rewards and"
        " lengths that are logged are those before the first try",
    )
    vllm_gpus: str | list[str] | None = _generation(
        None, "GPUs of the generation server, such as 3 or 2,3. Default: the last visible one"
    )
    vllm_server_args: str | None = _generation(
        None, "More options for the vLLM server that the run starts, as one string"
    )
    vllm_request_timeout: float = _generation(
        1800.0, "Seconds after which the run gives up on a batch that the generation server has not returned"
    )
    eval_puzzles: int = _evaluation(256, "Maximum number of held-out problems in each evaluation during the run")
    samples_per_step: int = _evaluation(8, "How many completions of each step are kept as samples; 0 keeps none")
    dry_run: bool = _planning(False, "Check the recipe, print what the run would do and need, and stop")
    plan_accelerate_config: str | None = _planning(
        None, "With dry_run: plan for accelerate launch with this --config_file. It need not work on this machine"
    )
    plan_processes: int | None = _planning(
        None, "With dry_run: plan for this many training processes. Default: as many as the accelerate file says"
    )
    plan_processes_per_machine: int | None = _planning(
        None, "With dry_run: how many of these processes run on each machine. Default: evenly divided"
    )
    gpu_memory_gb: float | None = _planning(
        None, "Memory of one GPU to plan for, in GiB. Default: that of the visible GPU, or 80 without one"
    )
    seconds_per_step: float | None = _planning(None, "Seconds that one step takes, to estimate the run's time")
    given: dict[str, Any] = field(init=False, default_factory=dict)  # what recipe and command line set, for the card
    settings: dict[str, Any] = field(init=False, default_factory=dict)  # every key as written, for the run's record


def grouped() -> dict[Group, list[str]]:
    """The names of the keys, by group.

    Raises:
        KeyError: a field has no group, or one that `Group` does not name.
    """
    groups: dict[Group, list[str]] = {group: [] for group in get_args(Group)}
    for entry in fields(ScriptArguments):
        if entry.init:
            groups[entry.metadata["group"]].append(entry.name)
    return groups
