"""What sbatch will give a job, worked out before: every form in which a user or a site may ask for it.

Compared with a real SLURM 22.05 by hand: it takes --gpus-per-node before --gres without a word, and refuses the other
contradictions in its own.
"""

import runpy
from collections.abc import Mapping
from typing import Any

import pytest

from conftest import ROOT
from mini_r1.program.problems import UserError

PLAN: Mapping[str, Any] = runpy.run_path(str(ROOT / "slurm" / "plan.py"))
SCRIPT = (ROOT / "slurm" / "run_r1_grpo.slurm").read_text()  # asks for 1 node with 4 GPUs
WITH_GRES = "#!/bin/bash\n#SBATCH -N2 --gres=gpu:a100:8,nvme # the site's own\n"


def plan(
    words: str, recipes: int = 1, script: str = SCRIPT, environ: Mapping[str, str] | None = None
) -> tuple[int, int, tuple[int, ...]]:
    """Nodes, GPUs of each, indices."""
    made = PLAN["make_plan"](script, recipes, words.split(), environ or {})
    return made.nodes, made.gpus, made.indices


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", (1, 4)),
        ("--account=a --time 10 --comment=--nodes", (1, 4)),
        ("--nodes=2", (2, 4)),
        ("--nodes 2", (2, 4)),
        ("-N2", (2, 4)),
        ("-N 2", (2, 4)),
        ("-N 2-2", (2, 4)),
        ("--nodes=2 --nodes=3", (3, 4)),
        ("--gpus-per-node=8", (1, 8)),
        ("--gpus-per-node 8", (1, 8)),
        ("--gpus-per-node=a100:2", (1, 2)),
        ("--gpus-per-node=a100:2,h100:1", (1, 3)),
        ("--gpus-per-node=a100", (1, 1)),
        ("--gpus-per-node=0", (1, 0)),
        ("--gres=gpu:4", (1, 4)),
        ("--gres gpu:a100:4(S:0-1),nvme:2", (1, 4)),
        ("--gres=nvme:2", (1, 4)),
        ("--gres=gpu:2 --gpus-per-node=2", (1, 2)),
        ("-G 4", (1, 4)),
        ("-G2 --gpus-per-node=2", (1, 2)),
        ("--gpus-per-task=4", (1, 4)),
        ("--tres-per-task=cpu:4,gres/gpu:4", (1, 4)),
        ("-n 2 -N 2", (2, 4)),
        ("--signal=B:USR1@600", (1, 4)),
        ("--chdir=.", (1, 4)),
    ],
)
def test_what_is_given_is_planned(words: str, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert plan(words) == (*expected, ())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gres=gpu:2", "Give --gpus-per-node=2 and no other"),
        ("--gres=gpu", "Give --gpus-per-node=1 and no other"),
        ("--gres=gpu:a100:2", "Give --gpus-per-node=2 and no other"),
        ("--gpus=2", "Give --gpus-per-node=2 and no other"),
        ("-G 2", "Give --gpus-per-node=2 and no other"),
        ("-G2", "Give --gpus-per-node=2 and no other"),
        ("--gpus-per-task=2", "Give --gpus-per-node=2 and no other"),
        ("--nodes=2 --gpus=8", "leaves open how many GPUs each node gives"),
        ("--gpus-per-socket=2", "leaves open how many GPUs each node gives"),
        ("--gpus-per-node=many:x", "is not a number of GPUs"),
        ("--gpus-per-node=-1", "is not a number of GPUs"),
        ("--nodes=2-4", "Name one number, such as --nodes=2"),
        ("--nodes=2k", "is not a number of nodes"),
        ("--nodes=0", "is not a number of nodes"),
        ("--nodes", "is not a number of nodes"),
        ("--gpus-per-n=2", "Write it out, such as --gpus-per-node"),
        ("--arr=1", "Write it out, such as --array"),
        ("-n 2", "one task on each node"),
        ("--ntasks-per-node=4", "one task on each node"),
        ("--signal=USR1@60", "--signal=B:USR1@600"),
        ("--signal=B:TERM@60", "--signal=B:USR1@600"),
        ("--chdir=/", "Leave --chdir out"),
        ("-D /", "Leave --chdir out"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_fix(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        plan(words)


def test_variables_go_before_the_header_and_after_the_command_line() -> None:
    """As sbatch takes them."""
    assert plan("", environ={"SBATCH_GPUS_PER_NODE": "2"})[1] == 2
    assert plan("--gpus-per-node=8", environ={"SBATCH_GPUS_PER_NODE": "2"})[1] == 8
    assert plan("", environ={"SBATCH_ARRAY_INX": "3-4"})[2] == (3, 4)
    for variable in ("SBATCH_GPUS", "SBATCH_GRES", "SBATCH_GPUS_PER_TASK"):
        value = "gpu:2" if variable == "SBATCH_GRES" else "2"
        with pytest.raises(UserError, match=rf"Give --gpus-per-node=2 and no other, and unset {variable}"):
            plan("", environ={variable: value})


def test_a_header_that_a_site_has_changed_is_read() -> None:
    assert plan("", script=WITH_GRES)[:2] == (2, 8)
    assert plan("--gpus-per-node=4", script=WITH_GRES)[:2] == (2, 4)  # sbatch takes it before --gres
    with pytest.raises(UserError, match="no GPUs are asked for"):
        plan("", script="#!/bin/bash\n")


@pytest.mark.parametrize(
    ("words", "recipes", "indices"),
    [
        ("--array=42-44", 1, (42, 43)),  # of one recipe's seeds, the first are enough
        ("-a 42", 1, (42,)),
        ("-a0-1", 2, (0, 1)),
        ("--array 0-2%1", 3, (0, 1, 2)),
        ("--array=0-4:2", 5, (0, 2, 4)),
        ("--array=1,0", 2, (0, 1)),
        ("--array=1", 2, (1,)),
    ],
)
def test_indices_of_an_array(words: str, recipes: int, indices: tuple[int, ...]) -> None:
    assert plan(words, recipes)[2] == indices


@pytest.mark.parametrize(
    ("words", "recipes", "message"),
    [
        ("", 2, "2 recipes need an array.* Give --array=0-1"),
        ("--array=0-2", 2, "has the index 2, .* Give --array=0-1"),
        ("--array=42-44", 2, "for several seeds, name one recipe"),
        ("--array=0-4000000", 2, "for several seeds, name one recipe"),
        ("--array=1-2:5,7", 3, "has the index 7"),
        ("--array=x", 1, "is not a list of indices"),
        ("--array=", 1, "is not a list of indices"),
        ("--array=3-1", 1, "is not a list of indices"),
        ("--array=0-3:0", 1, "is not a list of indices"),
    ],
)
def test_indices_that_fit_nothing_are_refused(words: str, recipes: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(words, recipes)
