"""The GPUs of one process: it sees the one it trains on, and its server's stay known."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, TINY_RECIPE
from mini_r1.machine.generator import generation_gpu_ids
from mini_r1.machine.gpus import server_gpus, use_training_gpu, visible_gpus
from mini_r1.preflight.checks import check_run
from mini_r1.recipe.read import read_recipe

ON_GPU = ("--use_cpu", "false", "--bf16", "true")
SERVER = ("--use_vllm", "true", "--vllm_mode", "server")


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stand in for the driver: `gpus(2)` makes nvidia-smi show two, since there is none here."""
    monkeypatch.setattr("mini_r1.machine.gpus._BEFORE", {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is restored
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def show(count: int) -> None:
        program = tmp_path / "nvidia-smi"
        lines = "".join(f"GPU-{index}abc, NVIDIA H100 80GB HBM3, 81559\\n" for index in range(count))
        program.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return show


@pytest.mark.parametrize(
    ("count", "words", "shown", "server", "idle"),
    [
        (1, (), None, [], None),
        (2, (), "0", [], "idle: 1. To train on 2: accelerate launch --num_processes 2 --config_file configs/"),
        (2, SERVER, "0", ["1"], None),
        (4, SERVER, "0", ["3"], "idle: 1,2. To train on 3: accelerate launch --num_processes 3"),
        (4, (*SERVER, "--vllm_gpus", "1"), "0", ["1"], "idle: 2,3"),
        (4, (*SERVER, "--vllm_gpus", "2,3"), "0", ["2", "3"], "idle: 1."),
        (2, ("--use_vllm", "true", "--vllm_mode", "colocate"), "0", ["0"], "idle: 1."),
        (3, (*SERVER, "--vllm_server_base_url", "http://node7:8000"), "0", [], "idle: 1,2"),
    ],
)
def test_a_single_process_sees_its_training_gpu_alone(
    count: int,
    words: tuple[str, ...],
    shown: str | None,
    server: list[str],
    idle: str | None,
    gpus: Callable[[int], None],
) -> None:
    gpus(count)
    script, training, model = read_recipe(["--config", str(TINY_RECIPE), *ON_GPU, *words])
    notes = check_run(script, training, model).notes  # before: the same line as a note of the plan
    line = use_training_gpu(training, script.vllm_gpus)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == shown
    assert (idle in str(line) and line in notes) if idle else line is None
    if "server" in words and "--vllm_server_base_url" not in words:
        assert server_gpus(training, script.vllm_gpus) == server
    assert len(visible_gpus()) == count  # what the plan counts with
    assert use_training_gpu(training, script.vllm_gpus) == line  # a second recipe in the same process


@pytest.mark.parametrize("environ", [{"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, {"CUDA_VISIBLE_DEVICES": "1"}])
def test_several_processes_and_a_choice_of_the_user_are_left_alone(
    environ: dict[str, str], gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(2)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    script, training, _ = read_recipe(["--config", str(TINY_RECIPE), *ON_GPU])
    assert use_training_gpu(training, script.vllm_gpus) is None
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == environ.get("CUDA_VISIBLE_DEVICES")


def test_a_choice_of_two_is_cut_to_the_first_of_them(
    gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2,3")
    script, training, _ = read_recipe(["--config", str(TINY_RECIPE), *ON_GPU, *SERVER])
    assert use_training_gpu(training, script.vllm_gpus) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-2"
    assert server_gpus(training, script.vllm_gpus) == ["3"]


def test_torch_is_told_before_it_looks(gpus: Callable[[int], None]) -> None:
    """The variable is set when GRPOConfig is built, and CUDA has not been touched by then."""
    gpus(2)
    code = f"""
import os, torch
import mini_r1.recipe.read as recipe
def built(*values):
    assert not torch.cuda.is_initialized()
    print(os.environ["CUDA_VISIBLE_DEVICES"])
    return build(*values)
build, recipe.build_config = recipe.build_config, built
try:
    recipe.parse_recipe(["--config", {str(TINY_RECIPE)!r}, "--use_cpu", "false", "--bf16", "true"])
except recipe.RecipeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "0"
    assert "one process trains on one GPU, 0; idle: 1" in done.stderr


@pytest.mark.parametrize(
    ("written", "ids"),
    [("3", ["3"]), ("2, 3", ["2", "3"]), (["2", "3"], ["2", "3"]), (None, []), ("GPU-3abc", ["GPU-3abc"])],
)
def test_gpus_are_named_as_text_or_list(written: str | list[str] | None, ids: list[str]) -> None:
    assert generation_gpu_ids(written) == ids
