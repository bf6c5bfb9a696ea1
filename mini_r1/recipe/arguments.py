"""The keys of a recipe that are Mini-R1's own; nothing here takes time to import."""

from dataclasses import dataclass, field
from typing import Any

from mini_r1.prompts.settings import PromptStyle


@dataclass
class ScriptArguments:
    """What Mini-R1 adds to the keys of TRL: the task and its data, the prompt's limit and the samples kept."""

    task: str = field(
        default="countdown", metadata={"help": "What is learned: a task's name, or package.module:Class of your own"}
    )
    task_config: dict[str, Any] | None = field(
        default=None, metadata={"help": "Settings of the task itself, as a mapping"}
    )
    reward_funcs: list[str] | None = field(
        default=None,
        metadata={"help": "Rewards by the task's names, or package.module.function; default: the task's usual ones"},
    )
    dataset_id_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Hub id, local folder or JSON/JSONL/CSV/Parquet file, or generated:WORLD; default: the task's"
        },
    )
    dataset_split: str = field(default="train", metadata={"help": "Split of the Hub dataset or folder to use"})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the Hub dataset"})
    tokenizer_name_or_path: str | None = field(default=None, metadata={"help": "Tokenizer, if not the model's own"})
    max_samples: int = field(
        default=50_000, metadata={"help": "Puzzles used, before the split; a smaller set is whole"}
    )
    split_seed: int = field(default=42, metadata={"help": "Seed of the choice and the split of the puzzles"})
    test_size: float = field(default=0.1, metadata={"help": "Share of the puzzles held out, between 0 and 1"})
    prompt_style: PromptStyle = field(
        default="chat",
        metadata={"help": "chat: by a chat template; base: plain text, for a base model"},
    )
    chat_template: str | None = field(
        default=None, metadata={"help": "File with a chat template; default: the tokenizer's own"}
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": 'Text in front of the question; "" for none; default: the task\'s'}
    )
    max_prompt_length: int = field(default=256, metadata={"help": "Longer prompts are dropped, in tokens"})
    eval_puzzles: int = field(default=256, metadata={"help": "Held-out puzzles per evaluation during the run"})
    length_buckets: int = field(
        default=1, metadata={"help": "Parts, by length, in which a batch's log-probabilities are computed"}
    )
    vllm_server_args: str | None = field(
        default=None, metadata={"help": "More arguments for the `vllm serve` that the run starts, as one string"}
    )
    vllm_request_timeout: float = field(
        default=1800.0, metadata={"help": "Seconds that the generation server may take for one batch"}
    )
    samples_per_step: int = field(default=8, metadata={"help": "Completions kept as samples per step; 0 keeps none"})
    vllm_gpus: str | list[str] | None = field(
        default=None,
        metadata={"help": "GPUs of the generation server, such as 3 or 2,3; default: the last visible"},
    )
    dry_run: bool = field(default=False, metadata={"help": "Check the run and print what it needs, then stop"})
    plan_accelerate_config: str | None = field(
        default=None,
        metadata={"help": "With dry_run: plan for `accelerate launch --config_file FILE`, which need not run here"},
    )
    plan_processes: int | None = field(
        default=None, metadata={"help": "With dry_run: plan for so many training processes; default: the file's"}
    )
    plan_processes_per_machine: int | None = field(
        default=None, metadata={"help": "With dry_run: so many of them on each machine; default: evenly divided"}
    )
    gpu_memory_gb: float | None = field(
        default=None, metadata={"help": "GiB of a GPU to plan for; default: those of the visible one, else 80"}
    )
    seconds_per_step: float | None = field(default=None, metadata={"help": "For the estimate of time and cost"})
    gpu_hour_rate: float | None = field(default=None, metadata={"help": "Price of a GPU hour, in any currency"})
    given: dict[str, Any] = field(init=False, default_factory=dict)  # what recipe and command line set, for the card
    settings: dict[str, Any] = field(init=False, default_factory=dict)  # every key as written, for the run's record
