"""What sbatch will give a job, worked out before it is asked: the nodes, the GPUs of each, the indices of an array.

sbatch takes an option from its command line, else from the environment (SBATCH_GRES ...), else from the `#SBATCH` lines
of the script. What can't be known before, or would end in a job that can't run, is refused here, in words.

python slurm/plan.py slurm/run_r1_grpo.slurm NUMBER_OF_RECIPES [OPTIONS OF SBATCH]
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

# Options of sbatch that decide about the plan: short form, environment variable.
OPTIONS = {
    "nodes": ("-N", ""),
    "ntasks": ("-n", ""),
    "ntasks-per-node": ("", ""),
    "array": ("-a", "SBATCH_ARRAY_INX"),
    "gpus-per-node": ("", "SBATCH_GPUS_PER_NODE"),
    "gres": ("", "SBATCH_GRES"),
    "gpus": ("-G", "SBATCH_GPUS"),
    "gpus-per-task": ("", "SBATCH_GPUS_PER_TASK"),
    "gpus-per-socket": ("", "SBATCH_GPUS_PER_SOCKET"),
    "tres-per-task": ("", "SBATCH_TRES_PER_TASK"),
    "signal": ("", "SBATCH_SIGNAL"),
    "chdir": ("-D", ""),
}
GPU_OPTIONS = ("gpus-per-node", "gres", "gpus", "gpus-per-task", "gpus-per-socket", "tres-per-task")


@dataclass(frozen=True, slots=True)
class Request:
    """An option as somebody gave it.

    Attributes:
        option: its long name, without dashes.
        place: where it was given, for messages; empty for the command line.
    """

    option: str
    value: str
    place: str = ""

    def __str__(self) -> str:
        return f"--{self.option}={self.value}" + (f" ({self.place})" if self.place else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the job gets.

    Attributes:
        gpus: on each node.
        indices: the array's first ones, in order, at least one for each recipe that it names; empty without an array.
    """

    nodes: int
    gpus: int
    indices: tuple[int, ...]


def make_plan(script: str, recipes: int, words: Sequence[str], environ: Mapping[str, str]) -> Plan:
    """Plan a job.

    Args:
        script: the text of the batch script.
        recipes: how many the user named.
        words: sbatch's options on the command line.
        environ: `os.environ`.

    Raises:
        UserError: for what can't be planned or can't work.
    """
    requests = _requests(script, words, environ)
    nodes = _nodes(requests.get("nodes"))
    _check_tasks(requests, nodes)
    _check_signal(requests.get("signal"))
    _check_folder(requests.get("chdir"))
    return Plan(nodes, _gpus(requests, nodes), _indices(requests.get("array"), recipes))


def _requests(script: str, words: Sequence[str], environ: Mapping[str, str]) -> dict[str, Request]:
    """The request that counts of each option."""
    lines = [line[7:] for line in script.splitlines() if line.startswith("#SBATCH")]
    header = [word for line in lines for word in shlex.split(line, comments=True)]
    variables = {
        option: Request(option, environ[variable], f"{variable} in your environment")
        for option, (_, variable) in OPTIONS.items()
        if environ.get(variable)
    }
    return _read_words(header, "at the top of the script") | variables | _read_words(words)


def _read_words(words: Sequence[str], place: str = "") -> dict[str, Request]:
    """Find the options of the table, in every form that sbatch takes: --nodes=2, --nodes 2, -N2, -N 2."""
    found = {}
    for index, word in enumerate(words):
        option, value = _split(word)
        if option:
            found[option] = Request(option, value or "".join(words[index + 1 : index + 2]), place)
    return found


def _split(word: str) -> tuple[str, str | None]:
    """The option of the table that a word gives ("" if none), and its value if that is in the word, too."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        if name in OPTIONS:
            return name, value if equals else None
        full = [option for option in OPTIONS if len(name) > 2 and option.startswith(name)]
        if full:  # sbatch takes the beginning of a name for the whole, where no other option begins like it
            raise UserError(f"--{name} is the beginning of an option. Write it out, such as --{full[0]}")
        return "", None
    for option, (short, _) in OPTIONS.items():
        if short and word.startswith(short):
            return option, word[2:] or None
    return "", None


def _nodes(request: Request | None) -> int:
    if request is None:
        return 1
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", request.value)
    if not match or int(match[1]) < 1:
        raise UserError(f"{request} is not a number of nodes, such as --nodes=2")
    least, most = int(match[1]), int(match[2] or match[1])
    if least != most:
        raise UserError(
            f"{request} lets SLURM choose how many nodes there are, but batches are planned, and a requeued job "
            f"resumes, with one number of processes. Name one number, such as --nodes={least}"
        )
    return least


def _check_tasks(requests: Mapping[str, Request], nodes: int) -> None:
    for option, allowed in (("ntasks", nodes), ("ntasks-per-node", 1)):
        request = requests.get(option)
        if request and request.value != str(allowed):
            raise UserError(
                f"{request} does not fit: the script starts one task on each node, and that starts a process for each "
                f"GPU. Leave --{option} out; --nodes and --gpus-per-node say how many processes train"
            )


def _check_signal(request: Request | None) -> None:
    """The script itself must get the signal before the time limit: without `B:` it goes to the steps only."""
    if request and not re.fullmatch(r"R?BR?:(SIG)?(USR1|10)(@\d+)?", request.value, re.IGNORECASE):
        raise UserError(
            f"{request} is not the signal at which the job saves a checkpoint and queues itself again. Leave it out, "
            "or change only the seconds before the time limit, as in --signal=B:USR1@600"
        )


def _check_folder(request: Request | None) -> None:
    if request and Path(request.value).resolve() != Path.cwd():
        raise UserError(f"{request} is not this folder, where the job finds scripts/ and receipes/. Leave --chdir out")


def _gpus(requests: Mapping[str, Request], nodes: int) -> int:
    """How many GPUs each node gives."""
    asked = [requests[option] for option in GPU_OPTIONS if option in requests]
    asked.sort(key=lambda request: (not request.place, request.place.startswith("SBATCH_")), reverse=True)
    counts = [(request, count) for request in asked if (count := _count(request, nodes)) is not None]
    if not counts:
        raise UserError("no GPUs are asked for. Give --gpus-per-node=4, or 0 for a recipe with use_cpu: true")
    first, gpus = counts[0]
    for other, count in counts[1:]:
        # sbatch refuses what differs, in its own words, but for one case: it takes --gpus-per-node before --gres, even
        # where that is on its command line and the other at the top of the script.
        if count != gpus and (first.option, other.option) != ("gpus-per-node", "gres"):
            unset = [request.place.split()[0] for request, _ in counts if request.place.startswith("SBATCH_")]
            raise UserError(
                f"{first} and {other} ask for different numbers of GPUs. Give --gpus-per-node={gpus} and no other"
                + (f", and unset {' '.join(unset)}" if unset else "")
            )
    return gpus


def _count(request: Request, nodes: int) -> int | None:
    """The GPUs on each node that an option asks for; None if it does not ask for GPUs."""
    parts = [part.partition("(")[0] for part in re.split(r",(?![^(]*\))", request.value)]
    if request.option in ("gres", "tres-per-task"):
        wanted = [match[1] or "" for part in parts if (match := re.fullmatch(r"(?:gres[:/])?gpu(?:[:=](.*))?", part))]
        if not wanted:
            return None
        parts = wanted
    if request.option == "gpus-per-socket" or (request.option == "gpus" and nodes > 1):
        raise UserError(f"{request} leaves open how many GPUs each node gives. Use --gpus-per-node")
    numbers = [re.fullmatch(r"(?:[A-Za-z][\w.-]*[:=])?(\d+)|[A-Za-z][\w.-]*|", part) for part in parts]
    if not all(numbers):
        raise UserError(f"{request} is not a number of GPUs, such as --gpus-per-node=4 or --gpus-per-node=a100:4")
    return sum(int(match[1] or 1) for match in numbers if match)


def _indices(request: Request | None, recipes: int) -> tuple[int, ...]:
    """The array's indices, which pick the recipe, or are the seeds of the only one."""
    if request is None:
        if recipes > 1:
            raise UserError(f"{recipes} recipes need an array, whose index picks one. Give --array=0-{recipes - 1}")
        return ()
    indices: list[int] = []
    for part in request.value.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?", part)
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1)) if match else range(0)
        if not numbers:
            raise UserError(
                f"{request} is not a list of indices, such as --array=42-44, --array=1,3,5 or --array=0-7%2"
            )
        indices += numbers[: recipes + 1]  # if one is too large, one of these is
    if recipes > 1 and max(indices) >= recipes:
        raise UserError(
            f"{request} has the index {max(indices)}, but the index picks one of {recipes} recipes. Give "
            f"--array=0-{recipes - 1}; for several seeds, name one recipe"
        )
    return tuple(sorted(set(indices)))


def main() -> None:
    """Print nodes, GPUs of each and the array's indices."""
    script, recipes, *words = sys.argv[1:]
    plan = make_plan(Path(script).read_text(encoding="utf-8"), int(recipes), words, os.environ)
    print(plan.nodes, plan.gpus, *plan.indices)


if __name__ == "__main__":
    with in_words():
        main()
