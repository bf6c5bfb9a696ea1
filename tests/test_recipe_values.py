"""What the cluster script reads of a recipe without importing the libraries that it is for."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT


def values(recipe: Path, *overrides: str) -> list[str]:
    """Output folder, whether a vLLM server is wanted, how many GPUs it gets."""
    command = [sys.executable, str(ROOT / "slurm" / "recipe_values.py"), str(recipe), *overrides]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: runs/mine\nuse_vllm: true\nvllm_mode: server\n")
    return path


def test_the_recipe_is_read(recipe: Path) -> None:
    assert values(recipe) == ["runs/mine", "yes", "1"]


def test_the_command_line_overrides_it(recipe: Path) -> None:
    assert values(recipe, "--output-dir=runs/a b", "--no_use_vllm", "--vllm_gpus", "2,3") == ["runs/a b", "no", "2"]


def test_the_last_of_two_overrides_counts(recipe: Path) -> None:
    assert values(recipe, "--output_dir", "one", "--output_dir", "two")[0] == "two"


def test_a_server_that_has_an_address_is_not_started(recipe: Path) -> None:
    assert values(recipe, "--vllm_server_base_url", "http://node9:8000")[1] == "no"


def test_vllm_inside_the_trainer_is_no_server(recipe: Path) -> None:
    assert values(recipe, "--vllm_mode", "colocate")[1] == "no"
