"""What `--help` and `--help-all` show. Short by default, and at once: TRL's keys take seconds to import."""

import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from mini_r1.program.problems import shown
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.keys import Key, keys_of

RECIPES = Path(__file__).parents[2] / "receipes"
USAGE = """\
usage: [accelerate launch ...] {program} --config FILE [--key value ...]

  --config FILE   the recipe: a YAML file with one `key: value` a line
  --key value     overrides a key of the recipe, also as --key=value; --flag and --no_flag for true and false
  --help-all      every key: those of TRL's GRPOConfig and ModelConfig, too"""
GROUPS = {
    "Task and rewards": ("task", "task_config", "reward_funcs"),
    "Data and prompts": (
        *("dataset_id_or_path", "dataset_split", "dataset_revision", "max_samples", "test_size", "split_seed"),
        *("eval_puzzles", "prompt_style", "chat_template", "system_prompt", "max_prompt_length"),
        "tokenizer_name_or_path",
    ),
    "Training": ("length_buckets", "samples_per_step"),
    "Generation server": ("vllm_gpus", "vllm_server_args", "vllm_request_timeout"),
    "Checking and planning": (
        *("dry_run", "plan_accelerate_config", "plan_processes", "plan_processes_per_machine"),
        *("gpu_memory_gb", "seconds_per_step", "gpu_hour_rate"),
    ),
}
OFTEN = """\
Of TRL's keys, the most used: model_name_or_path, output_dir, max_steps, learning_rate, seed, num_generations,
per_device_train_batch_size, gradient_accumulation_steps, max_completion_length, temperature, beta, use_vllm,
vllm_mode, save_steps, eval_steps, report_to, resume_from_checkpoint, use_peft, load_in_4bit."""


def show_help_if_asked(arguments: Sequence[str]) -> None:
    """Print the help that the command line asks for, and end the program."""
    long = {"--help-all", "--help_all"} & set(arguments)
    if not long and not {"--help", "-h"} & set(arguments):
        return
    if os.environ.get("RANK", "0") == "0":  # one of several processes
        print(long_help() if long else short_help())
    sys.exit(0)


def short_help() -> str:
    """How to call the script, the recipes that there are, and Mini-R1's own keys."""
    own = keys_of(ScriptArguments)
    groups = [_section(title, (own[name] for name in names)) for title, names in GROUPS.items()]
    return "\n\n".join([USAGE.format(program=sys.argv[0]), _recipes(), *groups, OFTEN])


def long_help() -> str:
    """The short one, and every other key with its type and default."""
    from trl import GRPOConfig, ModelConfig  # takes seconds

    sections = [("The model (TRL's ModelConfig)", ModelConfig), ("Training (TRL's GRPOConfig)", GRPOConfig)]
    return "\n\n".join([short_help(), *(_section(title, keys_of(kind).values()) for title, kind in sections)])


def _recipes() -> str:
    """Each recipe with the first line of its header."""
    lines = []
    for path in sorted(RECIPES.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines += [f"  receipes/{path.name}", _lines(first)]
    return "\n".join(["Recipes", *lines])


def _section(title: str, keys: Iterable[Key]) -> str:
    entries = []
    for key in keys:
        default = "" if key.default is None else f"; default: {shown(key.default) or repr('')}"
        text = _lines(f"{key.help} [{key.needs()}{default}]")
        entries += [f"  --{key.name}", text]
    return "\n".join([title, *entries])


def _lines(text: str) -> str:
    """A paragraph below what it explains."""
    indent = " " * 6
    return textwrap.fill(
        text, 116, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
