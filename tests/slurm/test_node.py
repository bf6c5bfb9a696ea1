"""A task of a job on one node: which GPUs its processes see, how many there are, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

SHOW = """\
import os, sys
print(os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("VLLM_HOST_IP"), *sys.argv[1:])
"""
Done = subprocess.CompletedProcess[str]


def call(folder: Path, *words: str, **variables: str) -> Done:
    """Run the task of a step in a folder where a stand-in for accelerate shows what it is given."""
    launcher = folder / "accelerate" / "commands" / "launch.py"
    launcher.parent.mkdir(parents=True)
    for package in launcher.parents[:2]:
        (package / "__init__.py").touch()
    launcher.write_text(SHOW)
    (folder / "show.py").write_text(SHOW)
    given = {"VLLM_HOST_IP": "10.0.0.1", "SLURM_JOB_ID": "7", **variables}
    environ = {key: value for key, value in os.environ.items() if key not in ("CUDA_VISIBLE_DEVICES", "PYTHONPATH")}
    command = [sys.executable, str(ROOT / "slurm" / "node.py"), *words]
    return subprocess.run(command, cwd=folder, env=environ | given, capture_output=True, text=True)


@pytest.mark.parametrize(("gpus", "shown"), [("0,1,2,3", "3"), ("GPU-a,GPU-b", "GPU-b"), ("", "")])
def test_the_server_has_the_last_gpus_and_not_the_trainers_address(tmp_path: Path, gpus: str, shown: str) -> None:
    done = call(tmp_path, "serve", "1", "show.py", "--port", "8000", CUDA_VISIBLE_DEVICES=gpus)
    assert done.stdout == f"{shown} None --port 8000\n", done.stderr


@pytest.mark.parametrize(
    ("node", "nodes", "expected"),
    [
        ("0", "2", "0,1,2,3 10.0.0.1 --machine_rank 0 --num_processes 8"),
        ("1", "2", "0,1,2 10.0.0.1 --machine_rank 1 --num_processes 6"),  # divided by the nodes: 3
        ("0", "1", "0,1,2,3 10.0.0.1 --machine_rank 0 --num_processes 3"),  # the trainer starts vLLM on the last one
    ],
)
def test_the_last_node_keeps_a_gpu(tmp_path: Path, node: str, nodes: str, expected: str) -> None:
    place = {"SLURM_NODEID": node, "SLURM_STEP_NUM_NODES": nodes}
    done = call(tmp_path, "train", "4", "3", "--", "--seed", "1", CUDA_VISIBLE_DEVICES="0,1,2,3", **place)
    assert done.stdout == f"{expected} --seed 1\n", done.stderr


@pytest.mark.parametrize(("end", "status"), [("os._exit(5)", 5), ("os.kill(os.getpid(), 9)", 137)])
def test_it_ends_with_the_launchers_status(tmp_path: Path, end: str, status: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import os, sys\nif '-m' in sys.orig_argv: {end}\n")
    place = {"SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1", "PYTHONPATH": str(tmp_path)}
    assert call(tmp_path, "train", "1", "1", "--", **place).returncode == status
