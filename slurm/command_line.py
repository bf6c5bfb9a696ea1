"""The command line of the cluster script: its own options, recipes, overrides and, before the recipe, sbatch's options.

Runs in the host's Python: see host.py.
"""

import re
import sys
from pathlib import Path
from typing import Sequence

from host import die

USAGE = """\
Train with GRPO on a SLURM cluster, on one node or several. Call it from the repository's folder.

  bash slurm/run_r1_grpo.slurm   [SBATCH OPTIONS] [OPTIONS] RECIPE [OVERRIDES]   check the recipe here, then submit it
  sbatch [SBATCH OPTIONS] slurm/run_r1_grpo.slurm [OPTIONS] RECIPE [OVERRIDES]   submit without the check

OPTIONS
  --accelerate-config FILE   how processes share the model (configs/accelerate_configs/deepspeed_zero3.yaml)
  --vllm-nodes N             0: several nodes keep a GPU of the last one for vLLM, one node keeps its last (default);
                             1: the whole last node serves vLLM
  --max-requeues N           times that a stopped job queues itself again to resume (10)
  --dry-run                  only check the recipe, here: status 0 if it can be run, else 2
  --help                     this text; the keys of a recipe: python scripts/run_r1_grpo.py --help

RECIPE     receipes/NAME.yaml. OVERRIDES follow it, as for scripts/run_r1_grpo.py: --learning_rate 1e-6 --max_steps 50
Several nodes        --nodes=2
GPUs of each node    --gpus-per-node=8
Several seeds        --array=42-44 with one recipe: the index is the seed; results in OUTPUT_DIR/seed-42 ...
Several recipes      --array=0-1 with two recipes: the index picks one; results in OUTPUT_DIR/0-NAME ...

Logs are in OUTPUT_DIR/logs. 120 seconds before its time limit, or when it is pre-empted, a job saves a checkpoint and
queues itself again, and then resumes from there. See slurm/README.md.
"""
TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")
OF_SBATCH = (
    "-[A-Za-z].*|--(account|array|constraint|dependency|exclude|gpus|gpus-per-.*|gres|job-name|mem|nodelist|nodes|"
    "ntasks.*|output|partition|qos|reservation|time)"
)


class CommandLine:
    """What the user gave.

    Attributes:
        options: the script's own ones with a value, by name without dashes in front.
        own: those of them that were given, as words for the job.
        dry_run: whether to check only.
    """

    def __init__(self) -> None:
        self.options = {
            "accelerate-config": "configs/accelerate_configs/deepspeed_zero3.yaml",
            "vllm-nodes": "0",
            "max-requeues": "10",
        }
        self.dry_run = False
        self.own: "list[str]" = []
        self.recipes: "list[str]" = []
        self.overrides: "list[str]" = []
        self.of_sbatch: "list[str]" = []

    @property
    def accelerate_config(self) -> str:
        return self.options["accelerate-config"]


def parse(words: "Sequence[str]") -> CommandLine:
    """Sort the words, and end the program if they can't work."""
    line = CommandLine()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        option = name.replace("_", "-")  # both spellings, as for a recipe's keys
        if option in ("--help", "-h") or option.startswith("--help-"):
            sys.stdout.write(USAGE)
            sys.exit()
        if option == "--dry-run":
            if not equals:
                value = rest.pop(0) if rest and rest[0].isalnum() else "true"
            line.dry_run = _switch(name, value)
        elif option[2:] in line.options and option.startswith("--"):
            if not equals and not rest:
                die(f"{word} needs a value (see --help)")
            line.options[option[2:]] = value if equals else rest.pop(0)
            line.own.append(f"{option}={line.options[option[2:]]}")
        elif not line.overrides and re.fullmatch(r"[^-].*\.ya?ml", word, re.DOTALL):
            line.recipes.append(word)
        else:
            (line.overrides if line.recipes else line.of_sbatch).append(word)
    _check(line)
    return line


def _switch(name: str, value: str) -> bool:
    if value.lower() not in TRUE + FALSE:
        die(f"{name} is '{value}', but must be true or false")
    return value.lower() in TRUE


def _check(line: CommandLine) -> None:
    if not Path("scripts/run_r1_grpo.py").is_file():
        die(f"no scripts/run_r1_grpo.py in {Path.cwd()}: submit from the repository's folder")
    for word in line.of_sbatch + line.overrides:
        _check_word(word)
    for word in line.overrides:
        name = word.partition("=")[0]
        if re.fullmatch(OF_SBATCH, name, re.DOTALL):
            die(f"{name} is an option of sbatch: put it before the recipe")
    if not line.recipes:
        die("name a recipe, such as receipes/grpo-tiny-countdown.yaml (see --help)")
    for recipe in line.recipes:
        if not Path(recipe).is_file():
            die(f"there is no recipe '{recipe}'; recipes here: {_files('receipes')}")
    if not Path(line.accelerate_config).is_file():
        allowed = _files("configs/accelerate_configs")
        die(f"there is no --accelerate-config '{line.accelerate_config}'; allowed: {allowed}")
    nodes, requeues = line.options["vllm-nodes"], line.options["max-requeues"]
    if nodes not in ("0", "1"):
        die(f"--vllm-nodes={nodes} is not 0 or 1: vLLM serves from one node")
    if not re.fullmatch("[0-9]{1,9}", requeues):
        die(f"--max-requeues={requeues} is not a whole number, such as 10 (0: never)")


def _files(folder: str) -> str:
    return " ".join(sorted(map(str, Path(folder).glob("*.yaml")))) or "none"


def _check_word(word: str) -> None:
    """Refuse a word that would do harm in a job, or nothing."""
    given = word.partition("=")[0]
    name = given.replace("_", "-").lower()
    if name == "--config":
        die("a recipe is named without --config: bash slurm/run_r1_grpo.slurm receipes/NAME.yaml")
    if name.startswith("--plan-"):
        die(f"{given}: this script plans by --nodes and --gpus-per-node, before the recipe")
    if re.fullmatch("--(hub-token|.*-api-key|.*password)", name, re.DOTALL):
        die(
            f"{given} would stand in sbatch's command line for all to read (ps, scontrol show job): run 'hf auth "
            "login', or export HF_TOKEN in your shell or in the function site of slurm/run_r1_grpo.slurm"
        )
    if re.search("(token|_key|password|secret)=.|^hf_.{16}", word.lower(), re.DOTALL):
        die(
            f"'{given}' with a secret would stand in sbatch's command line for all to read (ps): export it in your "
            "shell, which sbatch hands on, or in the function site of slurm/run_r1_grpo.slurm"
        )
