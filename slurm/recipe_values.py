"""What the cluster script must know of a recipe before training starts, one value a line, in a second.

Prints the output folder, whether the run needs a vLLM server that is not there yet (yes or no), and how many GPUs that
gets. It reads the YAML file and the overrides as text; whether they are right is for the preflight to say, which needs
half a minute to import all that it checks.

python slurm/recipe_values.py receipes/grpo-tiny-countdown.yaml --output_dir runs/mine
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

# For what a recipe leaves out: as in TRL, transformers and mini_r1.recipe.
DEFAULTS = {"output_dir": "trainer_output", "use_vllm": False, "vllm_mode": "colocate", "vllm_gpus": None}


def override_values(overrides: Sequence[str]) -> dict[str, Any]:
    """The command line as keys and values, the last one of a key: `--key value`, `--key=value`, `--flag`, `--no_flag`.

    >>> override_values(["--seed", "1", "--output-dir=runs/a b", "--use_vllm", "--no_tf32"])
    {'seed': 1, 'output_dir': 'runs/a b', 'use_vllm': True, 'tf32': False}
    """
    values: dict[str, Any] = {}
    key = ""
    for text in overrides:
        if not text.startswith("--"):
            values[key] = yaml.safe_load(text)
            continue
        name, equals, value = text[2:].partition("=")
        key = name.replace("-", "_")
        if equals:
            values[key] = yaml.safe_load(value)
        elif key.startswith("no_"):
            values[key.removeprefix("no_")] = False
        else:
            values[key] = True
    return values


def main() -> int:
    """Print the values; return the exit status."""
    recipe = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if not isinstance(recipe, dict):
        print(f"error: {sys.argv[1]} is not a recipe: expected lines like `max_steps: 100`", file=sys.stderr)
        return 2
    values = DEFAULTS | recipe | override_values(sys.argv[2:])
    has_address = values.get("vllm_server_base_url") or values.get("vllm_server_host")
    wants_server = values["use_vllm"] is True and values["vllm_mode"] == "server" and not has_address
    gpus = str(values["vllm_gpus"]).split(",")  # of one machine, such as "2,3"
    print(values["output_dir"], "yes" if wants_server else "no", len(gpus), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
