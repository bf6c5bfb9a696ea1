"""The cluster script without a cluster: what it says, what it refuses, and what it hands to sbatch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from requirements import require_program

SCRIPT = ROOT / "slurm" / "run_r1_grpo.slurm"
RECIPE = "receipes/grpo-tiny-countdown.yaml"


def call(*arguments: str, path: Path | None = None, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Run the script as on a submit host, with `path` in front of PATH."""
    folders = [*([path] if path else []), Path(sys.executable).parent]  # the script takes python3 from there
    environment = os.environ | {"PATH": ":".join([*map(str, folders), os.environ["PATH"]])}
    return subprocess.run(["bash", SCRIPT, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def folder_with(tmp_path: Path, name: str, text: str) -> Path:
    """A folder with one executable that records its arguments, to stand for a program that this machine may lack."""
    (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / name).chmod(0o755)
    return tmp_path


def test_bash_can_read_it() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_shellcheck_finds_nothing() -> None:
    require_program("shellcheck")
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_assumes_nothing_of_a_site() -> None:
    """No modules, no shell start-up file; the site's block has examples in comments only."""
    code = [line.split("#")[0] for line in SCRIPT.read_text().splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in code if "module load" in line or "bashrc" in line]


def test_help_names_every_option() -> None:
    done = call("--help")
    assert done.returncode == 0
    for option in ("--vllm-nodes", "--max-requeues", "--accelerate-config", "--dry-run", "--array", "--nodes"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a recipe"),
        (["receipes/none.yaml"], "there is no recipe 'receipes/none.yaml'; recipes here: receipes/"),
        ([RECIPE, "--vllm-nodes", "2"], "--vllm-nodes=2 is not 0 or 1"),
        ([RECIPE, "--vllm-nodes"], "--vllm-nodes needs a value"),
        ([RECIPE, "--max-requeues=-1"], "--max-requeues=-1 is not a whole number"),
        ([RECIPE, "--accelerate-config", "x.yaml"], "there is no --accelerate-config 'x.yaml'; allowed: configs/"),
    ],
)
def test_a_bad_command_line_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_elsewhere_it_names_the_folder_to_call_it_from(tmp_path: Path) -> None:
    done = call(RECIPE, cwd=tmp_path)
    assert done.returncode == 2
    assert "submit from the repository's folder" in done.stderr


@pytest.mark.slow
def test_a_bad_recipe_is_never_queued(tmp_path: Path) -> None:
    """The real preflight refuses it; sbatch (a stand-in that would tell) is not called."""
    bin_folder = folder_with(tmp_path, "sbatch", f"touch {tmp_path}/queued")
    done = call("--nodes=2", RECIPE, "--learning_speed", "1e-4", path=bin_folder)
    assert done.returncode == 2
    assert "learning_speed" in done.stderr + done.stdout
    assert not (tmp_path / "queued").exists()


@pytest.mark.slow
def test_a_good_recipe_is_queued_with_all_that_was_given(tmp_path: Path) -> None:
    bin_folder = folder_with(tmp_path, "sbatch", f'printf "%s\\n" "$@" > {tmp_path}/arguments')
    done = call("-N", "2", "--max-requeues", "3", RECIPE, "--output_dir", "runs/a b", path=bin_folder)
    assert done.returncode == 0, done.stderr
    script, *rest = (tmp_path / "arguments").read_text().splitlines()[2:]
    assert script.endswith("run_r1_grpo.slurm")
    assert rest == ["--max-requeues=3", RECIPE, "--output_dir", "runs/a b"]
