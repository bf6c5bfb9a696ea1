"""Which run a job makes, and which of its nodes train and which serve: the same on the submit host as in the job.

Runs in the host's Python: see host.py.
"""

import sys
from pathlib import Path
from typing import Callable, Sequence

from command_line import CommandLine
from host import die

RunPython = Callable[["Sequence[str]"], "tuple[int, str]"]  # arguments of the job's Python: its status, what it printed


class Run:
    """One run of the job, or of one element of its array.

    Attributes:
        folder: its output_dir.
        extra: more overrides, for the seed and the folder of an array's element.
        wants_server: whether it wants a vLLM server started.
        vllm_gpus: how many GPUs that gets.
        on_cpu, only_checks: whether the recipe is for CPUs, and whether it is a dry run.
    """

    def __init__(self, recipe: str, values: "Sequence[str]") -> None:
        self.recipe = recipe
        self.extra: "list[str]" = []
        self.folder = values[0]
        self.wants_server, self.on_cpu, self.only_checks = (values[index] == "yes" for index in (1, 3, 4))
        self.vllm_gpus = int(values[2])


class Layout:
    """Who does what.

    Attributes:
        training: the nodes that train.
        server: the node of a vLLM server that is a step of the job; empty if there is none.
        kept: GPUs of the last training node that don't train.
        server_gpus: those that vLLM gets.
    """

    def __init__(self, training: "list[str]", server: str, kept: int, server_gpus: int) -> None:
        self.training, self.server, self.kept, self.server_gpus = training, server, kept, server_gpus


def choose_run(line: CommandLine, index: str, run_python: RunPython) -> Run:
    """Choose the recipe, the seed and the folder; `index` is the array's, or empty."""
    last = len(line.recipes) - 1
    recipe = line.recipes[0]
    if last:
        if not index:
            die(f"{last + 1} recipes need an array, whose index picks one: sbatch --array=0-{last} ...")
        if int(index) > last:
            die(f"array index {index}, but there are {last + 1} recipes: sbatch --array=0-{last} ...")
        recipe = line.recipes[int(index)]
    status, values = run_python(["slurm/recipe_values.py", recipe, *line.overrides])
    if status:
        sys.exit(status)
    run = Run(recipe, values.splitlines())
    if last:
        run.folder += f"/{index}-{Path(recipe).stem}"
        run.extra = ["--output_dir", run.folder]
    elif index:
        if any(word.partition("=")[0] == "--seed" for word in line.overrides):
            die("both --seed and --array are given, whose index is the seed: leave one out")
        run.folder += f"/seed-{index}"
        run.extra = ["--seed", index, "--output_dir", run.folder]
    return run


def divide(nodes: "list[str]", per_node: int, run: Run, whole: bool) -> Layout:
    """Divide the nodes: training on the first ones; with several, vLLM on the last.

    Args:
        per_node: GPUs of each node.
        whole: whether vLLM is to have the whole last node.
    """
    if not per_node and not run.on_cpu:
        die(f"no GPU per node, but {run.recipe} is not for CPUs: give --gpus-per-node=4")
    if not run.wants_server:
        if whole:
            keys = "use_vllm: true, vllm_mode: server, no address"
            die(f"--vllm-nodes=1, but {run.recipe} wants no vLLM server started: {keys}")
        return Layout(nodes, "", 0, run.vllm_gpus)
    several = len(nodes) > 1
    if whole or (several and per_node == run.vllm_gpus):
        if not several:
            die("--vllm-nodes=1 needs a second node for training: sbatch --nodes=2 ...")
        return Layout(nodes[:-1], nodes[-1], 0, per_node)
    if per_node <= run.vllm_gpus:
        die(
            f"{per_node} GPU per node, of which vLLM gets {run.vllm_gpus}: none is left to train on; give "
            f"--gpus-per-node={run.vllm_gpus + 1} or more"
        )
    return Layout(nodes, nodes[-1] if several else "", run.vllm_gpus, run.vllm_gpus)
