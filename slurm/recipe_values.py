"""What the cluster script must know of a recipe before training starts, one value a line, in a second.

Prints the output folder, whether the run needs a vLLM server that is not there yet (yes or no), how many GPUs that
gets, whether the run is for CPUs, and whether it is a dry run. It reads the YAML file and the overrides as text, as
mini_r1.recipe.read does; whether they are right is for the preflight to say, which needs half a minute to import all
that it checks.

python slurm/recipe_values.py receipes/grpo-tiny-countdown.yaml --output_dir runs/mine
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

with in_words():
    import yaml

# For what a recipe leaves out: as in TRL, transformers and mini_r1.recipe.read.
DEFAULTS: dict[str, Any] = {
    "output_dir": "trainer_output",
    "use_vllm": False,
    "vllm_mode": "colocate",
    "vllm_server_host": "0.0.0.0",
    "use_cpu": False,
    "dry_run": False,
}
TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")  # as transformers' string_to_bool


def override_values(overrides: Sequence[str]) -> dict[str, str]:
    """The command line as keys and texts, the last one of a key: `--key value`, `--key=value`, `--flag`.

    >>> override_values(["--seed", "1", "--output-dir=runs/a b", "--use_vllm", "--beta", "-0.5"])
    {'seed': '1', 'output_dir': 'runs/a b', 'use_vllm': '', 'beta': '-0.5'}
    """
    values: dict[str, str] = {}
    key = ""
    for text in overrides:
        if text.startswith("--"):
            name, _, value = text[2:].partition("=")
            key = name.replace("-", "_")
            values[key] = value
        else:
            values[key] = text
    return values


def read_recipe(path: str) -> dict[str, Any]:
    """The keys of a recipe's file.

    Raises:
        UserError: if it can't be read, or is no YAML with keys.
    """
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"the recipe {path} can't be read: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise UserError(f"{path} is not a recipe: expected lines like `max_steps: 100`")
    return recipe


def is_on(key: str, value: object) -> bool:
    """Whether a switch is on; on the command line its bare name turns it on."""
    text = str(value).lower()
    if text in ("", *TRUE):
        return True
    if text in ("none", *FALSE):
        return False
    raise UserError(f"{key} is {value}, but must be true or false")


def output_folder(value: object) -> str:
    """The folder of the run as the trainer takes it: `~` stands for the home folder, nothing else is replaced."""
    if value is None:
        value = DEFAULTS["output_dir"]
    if not isinstance(value, str):
        raise UserError(f"output_dir is read as {value!r} by YAML, but must be a folder: put it in quotes")
    if not value.strip() or re.search(r"[\x00-\x1f]", value):
        raise UserError(f"output_dir is {value!r}, but must be a folder: name one, such as runs/mine")
    if "$" in value:
        raise UserError(
            f"output_dir is {value!r}, but nothing replaces variables there. Write the folder out, or let your shell "
            'replace it on the command line, after the recipe: --output_dir "$SCRATCH/run"'
        )
    return str(Path(value).expanduser())


def wants_server(values: Mapping[str, Any]) -> bool:
    """Whether the run starts a vLLM server: mini_r1.machine.gpus.generation_kind says "own server"."""
    has_address = values.get("vllm_server_base_url") is not None
    has_address |= values["vllm_server_host"] != DEFAULTS["vllm_server_host"]
    return is_on("use_vllm", values["use_vllm"]) and values["vllm_mode"] != "colocate" and not has_address


def main() -> None:
    """Print the values."""
    values = DEFAULTS | read_recipe(sys.argv[1]) | override_values(sys.argv[2:])
    folder = output_folder(values["output_dir"])
    answers = [wants_server(values), *(is_on(key, values[key]) for key in ("use_cpu", "dry_run"))]
    server, cpu, dry_run = ("yes" if answer else "no" for answer in answers)
    gpus = [part for part in str(values.get("vllm_gpus") or "").split(",") if part.strip()]  # of one machine: "2,3"
    print(folder, server, max(1, len(gpus)), cpu, dry_run, sep="\n")


if __name__ == "__main__":
    with in_words():
        main()
