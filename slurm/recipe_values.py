"""What the cluster script must know of a recipe before training starts, one value a line, in a second.

Prints the output folder, whether the run needs a vLLM server that is not there yet (yes or no), how many GPUs that
gets, whether the run is for CPUs, and whether it is a dry run. The reader is the trainer's, with only these keys: all
the others, whose types take TRL and half a minute to import, are for the preflight to check.

python slurm/recipe_values.py receipes/grpo-tiny-countdown.yaml --output_dir runs/mine
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

with in_words():
    from mini_r1.machine.generator import NO_HOST, generation_gpu_ids, generation_kind
    from mini_r1.recipe.keys import keys_of, negated, read_value
    from mini_r1.recipe.text import read_written


@dataclass
class Values:
    """The keys that count here, with the types and defaults that they have in TRL and mini_r1.recipe.arguments."""

    method: Literal["grpo", "sft"] = "grpo"
    output_dir: str | None = None
    use_vllm: bool = False
    vllm_mode: str = "colocate"
    vllm_server_base_url: str | None = None
    vllm_server_host: str = NO_HOST
    vllm_gpus: str | list[str] | None = None
    use_cpu: bool = False
    dry_run: bool = False


KEYS = keys_of(Values)


def read(recipe: str, overrides: Sequence[str]) -> Values:
    """The values that hold.

    Raises:
        UserError: if the file can't be read, or one of these keys has a value of another type.
    """
    # Whatever else the command line sets is a key, too, known or not, and no value of the key before it.
    others = {word[2:].partition("=")[0].replace("-", "_") for word in overrides if word.startswith("--")}
    written = read_written(["--config", recipe, *overrides], KEYS.keys() | others)
    named = [negated(name, value, KEYS) for name, value in written.items()]
    values = Values(**{name: read_value(KEYS[name], value) for name, value in named if name in KEYS})
    return replace(values, use_vllm=False) if values.method == "sft" else values  # demonstrations are not generated


def output_folder(value: str | None) -> str:
    """The folder of the run as the trainer takes it: `~` stands for the home folder, nothing else is replaced."""
    if value is None:
        return "trainer_output"  # transformers' own
    if not value.strip() or re.search(r"[\x00-\x1f]", value):
        raise UserError(f"output_dir is {value!r}, but must be a folder: name one, such as runs/mine")
    if "$" in value:
        raise UserError(
            f"output_dir is {value!r}, but nothing replaces variables there. Write the folder out, or let your shell "
            'replace it on the command line, after the recipe: --output_dir "$SCRATCH/run"'
        )
    return str(Path(value).expanduser())


def main() -> None:
    """Print the values."""
    values = read(sys.argv[1], sys.argv[2:])
    answers = (generation_kind(values) == "own server", values.use_cpu, values.dry_run)
    server, cpu, dry_run = ("yes" if answer else "no" for answer in answers)
    gpus = max(1, len(generation_gpu_ids(values.vllm_gpus)))  # of one machine
    print(output_folder(values.output_dir), server, gpus, cpu, dry_run, sep="\n")


if __name__ == "__main__":
    with in_words():
        main()
