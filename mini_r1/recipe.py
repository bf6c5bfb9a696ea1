"""A recipe: one YAML file with everything that a run is made of, checked before any time is spent.

Its keys are those of TRL's `GRPOConfig` and `ModelConfig` and of `ScriptArguments` below; the command line overrides
them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import GRPOConfig, ModelConfig, TrlParser

from mini_r1.countdown import DEFAULT_DATASET
from mini_r1.problems import UserError


class RecipeError(UserError, ValueError):
    """A recipe that can't be run; the message names the value, what is allowed and the fix."""


@dataclass
class ScriptArguments:
    """What Mini-R1 adds to the keys of TRL: the puzzles, the prompt's limit and the samples kept."""

    dataset_id_or_path: str = field(
        default=DEFAULT_DATASET,
        metadata={"help": "Hub id, local folder or JSON/JSONL/CSV/Parquet file, or generated:WORLD"},
    )
    dataset_split: str = field(default="train", metadata={"help": "Split of the Hub dataset or folder to use"})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the Hub dataset"})
    tokenizer_name_or_path: str | None = field(default=None, metadata={"help": "Tokenizer, if not the model's own"})
    max_samples: int = field(
        default=50_000, metadata={"help": "Puzzles used, before the split; a smaller set is whole"}
    )
    split_seed: int = field(default=42, metadata={"help": "Seed of the choice and the split of the puzzles"})
    test_size: float = field(default=0.1, metadata={"help": "Share of the puzzles held out, between 0 and 1"})
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
    vllm_gpus: str | None = field(
        default=None,
        metadata={"help": 'GPUs of the generation server, such as "3" or "2,3"; default: the last visible'},
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


def parse_recipe(arguments: Sequence[str] | None = None) -> tuple[ScriptArguments, GRPOConfig, ModelConfig]:
    """Read `--config FILE` and the overrides that follow it (default: the command line).

    Raises:
        RecipeError: for a missing or malformed file, an unknown key or a value out of range.
    """
    return _parse(arguments, GRPOConfig)


def _parse(
    arguments: Sequence[str] | None, config: type[GRPOConfig]
) -> tuple[ScriptArguments, GRPOConfig, ModelConfig]:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _check_config_file(arguments)
    kinds: Any = (ScriptArguments, _Values, ModelConfig)  # TRL types a tuple as one class
    parser = TrlParser(kinds)
    try:
        script, values, model = parser.parse_args_and_config(arguments)
        settings = _settings(script, values, model)
        written = {key.name: getattr(values, key.name) for key in fields(config) if key.init}
        training = config(**written)
    except ValueError as error:
        raise RecipeError(f"the recipe can't be used: {error}") from error
    _check_values(script, training, model)
    script.given, script.settings = _given(arguments, script, training, model), settings
    return script, training, model


def _settings(*parsed: Any) -> dict[str, Any]:
    """Every key with its value as written, before GRPOConfig derives others from them."""
    values = {key.name: getattr(part, key.name) for part in parsed for key in fields(part) if key.init}
    return {key: value.value if isinstance(value, Enum) else value for key, value in values.items()}


class _Values(GRPOConfig):
    """The keys of GRPOConfig as written: nothing derived from them, no device or process group touched."""

    def __post_init__(self) -> None:
        """Leave out what TRL does here, which needs the GPUs that the recipe is for."""


def read_recipe(arguments: Sequence[str] | None = None) -> tuple[ScriptArguments, GRPOConfig, ModelConfig]:
    """Read as `parse_recipe`, but without building GRPOConfig: works on a machine without the recipe's GPUs.

    Raises:
        RecipeError: for a missing or malformed file, an unknown key or a value of the wrong type.
    """
    return _parse(arguments, _Values)


def _given(arguments: Sequence[str], *parsed: Any) -> dict[str, Any]:
    """The keys that the recipe and the command line set, with the values that hold; never a token."""
    keys: list[str] = []
    if "--config" in arguments:
        path = Path(arguments[list(arguments).index("--config") + 1])
        keys += yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    keys += [word[2:].partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")]
    values = {key: getattr(part, key) for key in keys for part in parsed if hasattr(part, key)}
    plain = {key: value.value if isinstance(value, Enum) else value for key, value in values.items()}
    return {key: value for key, value in plain.items() if not key.endswith("_token")}


def _check_config_file(arguments: Sequence[str]) -> None:
    if "--config" not in arguments:
        return
    position = list(arguments).index("--config") + 1
    if position == len(arguments):
        raise RecipeError("--config needs the path of a recipe, such as receipes/grpo-tiny-countdown.yaml")
    if not Path(arguments[position]).is_file():
        known = ", ".join(sorted(str(path) for path in Path("receipes").glob("*.yaml"))) or "none in ./receipes"
        raise RecipeError(f"there is no recipe {arguments[position]!r}; recipes here: {known}")


def _check_values(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> None:
    if not model.model_name_or_path:
        raise RecipeError("model_name_or_path is not set: name a Hub model or a local folder")
    if not 0 < script.test_size < 1:
        raise RecipeError(f"test_size={script.test_size} is not between 0 and 1: use 0.1 to hold out a tenth")
    for name in ("max_samples", "max_prompt_length", "eval_puzzles", "length_buckets"):
        if getattr(script, name) < 1:
            raise RecipeError(f"{name}={getattr(script, name)} is not a positive whole number")
    if script.samples_per_step < 0:
        raise RecipeError(f"samples_per_step={script.samples_per_step} is negative: use 0 to keep no samples")
    for name in ("gpu_memory_gb", "seconds_per_step", "gpu_hour_rate"):
        if (value := getattr(script, name)) is not None and value <= 0:
            raise RecipeError(f"{name}={value} is not positive: correct it, or leave it out")
    if training.resume_from_checkpoint and not Path(training.resume_from_checkpoint).is_dir():
        raise RecipeError(
            f"resume_from_checkpoint={training.resume_from_checkpoint!r} is no folder: give a checkpoint-N folder, or "
            f"leave it out to go on from the last one in {training.output_dir!r}"
        )


def attention_implementation(wanted: str | None) -> tuple[str | None, str | None]:
    """The attention to load the model with, and a line to log if it is not the one wanted.

    FlashAttention 2 needs a compiler and a GPU to install, so a machine without it falls back to PyTorch's own.
    """
    if wanted == "flash_attention_2" and find_spec("flash_attn") is None:
        return "sdpa", "flash-attn is not installed: using PyTorch's sdpa attention (same results, a little slower)"
    return wanted, None


def model_init_kwargs(model: ModelConfig) -> tuple[dict[str, Any], str | None]:
    """What GRPOTrainer must hand to `from_pretrained`: it takes only the model's name from us otherwise."""
    attention, note = attention_implementation(model.attn_implementation)
    kwargs = {"revision": model.model_revision, "attn_implementation": attention, "dtype": model.dtype}
    return kwargs, note


def load_tokenizer(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer; padding falls back to the end token where a model defines none."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        script.tokenizer_name_or_path or model.model_name_or_path,
        revision=model.model_revision,
        trust_remote_code=training.trust_remote_code,
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
