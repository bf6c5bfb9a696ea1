"""What the cluster script reads of a recipe without importing the libraries that it is for, as those would read it."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from mini_r1.machine.generator import generation_gpu_ids, generation_kind
from mini_r1.recipe.read import KEYS, read_recipe

RECIPE = "model_name_or_path: tiny\noutput_dir: runs/mine\nuse_vllm: true\nvllm_mode: server\n"


def call(recipe: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "slurm" / "recipe_values.py"), str(recipe), *overrides]
    return subprocess.run(command, capture_output=True, text=True)


def values(recipe: Path, *overrides: str) -> list[str]:
    """Output folder, whether a vLLM server is wanted, how many GPUs it gets, whether it is for CPUs, a dry run."""
    done = call(recipe, *overrides)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["--output_dir", "one", "--output_dir", "two"],
        ["--output-dir=runs/a b", "--use_vllm", "false", "--vllm_gpus", "2,3"],
        ["--vllm_gpus=3"],
        ["--output_dir", "007"],
        ["--output_dir=1_000"],
        ["--output_dir", "on", "--use_vllm=yes"],
        ["--output_dir=a: b"],
        ["--output_dir", " spaces "],
        ["--use_vllm", "--use_cpu", "--dry_run"],
        ["--use_vllm", "0"],
        ["--use_cpu", "T", "--dry_run=False"],
        ["--vllm_mode", "colocate"],
        ["--vllm_server_base_url", "http://node9:8000"],
        ["--vllm_server_host=node9"],
        ["--vllm_server_host=0.0.0.0"],
        ["--beta", "-0.5"],
        ["--no_use_vllm", "--no-dry-run"],
        ["--output_dir", "runs/mine", "--run_name=a run"],
        ["--method", "sft"],
        ["--method=grpo"],
        ["--vllm_server_args", "--max-num-seqs=64 --enforce-eager", "--use_cpu"],
    ],
)
def test_the_command_line_is_read_as_the_trainer_reads_it(recipe: Path, overrides: list[str]) -> None:
    script, training, _ = read_recipe(["--config", str(recipe), *overrides])
    server = "yes" if generation_kind(training) == "own server" else "no"
    switches = ["yes" if on else "no" for on in (training.use_cpu, script.dry_run)]
    gpus = max(1, len(generation_gpu_ids(script.vllm_gpus)))
    assert values(recipe, *overrides) == [training.output_dir, server, str(gpus), *switches]


@pytest.mark.parametrize(
    "text",
    ["use_vllm: yes", "use_vllm: on", "use_vllm: 'true'", "use_vllm: off", "vllm_gpus: 3", "vllm_gpus: [2, 3]", ""],
)
def test_the_file_is_read_as_the_trainer_reads_it(recipe: Path, text: str) -> None:
    recipe.write_text(f"model_name_or_path: tiny\nvllm_mode: server\n{text}\n", encoding="utf-8")
    script, training, _ = read_recipe(["--config", str(recipe), "--output_dir", "x"])
    server = "yes" if generation_kind(training) == "own server" else "no"
    gpus = max(1, len(generation_gpu_ids(script.vllm_gpus)))
    assert values(recipe, "--output_dir", "x")[1:3] == [server, str(gpus)]


@pytest.mark.parametrize("folder", ["on", "123", "007", "2024-01-01"])
def test_a_folder_is_text_whatever_yaml_would_guess(recipe: Path, folder: str) -> None:
    recipe.write_text(f"model_name_or_path: tiny\noutput_dir: {folder}\n", encoding="utf-8")
    _, training, _ = read_recipe(["--config", str(recipe)])
    assert values(recipe)[0] == training.output_dir == folder


def test_types_and_defaults_are_the_trainers(recipe: Path) -> None:
    """But for the folder: TRL's own is transformers' `trainer_output`, known only once GRPOConfig is built."""
    ours = runpy.run_path(str(ROOT / "slurm" / "recipe_values.py"))["KEYS"]
    assert [(key.kinds, key.default) for key in ours.values()] == [
        (KEYS[name].kinds, KEYS[name].default) for name in ours
    ]
    recipe.write_text("model_name_or_path: tiny\n", encoding="utf-8")
    assert values(recipe) == ["trainer_output", "no", "1", "no", "no"]


def test_the_home_folder_is_where_the_trainer_has_it(recipe: Path) -> None:
    assert values(recipe, "--output_dir", "~/a b")[0] == str(Path.home() / "a b")
    recipe.write_text(RECIPE.replace("runs/mine", "~/x"), encoding="utf-8")
    assert values(recipe)[0] == str(Path.home() / "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- a", "is not a recipe"),
        ("", "is empty"),
        ("\0", "is not valid YAML"),
        ("output_dir:", "output_dir has no value in line 1"),
        ("output_dir: [a, b]", "needed: text"),
        ("output_dir: ''", "name one, such as runs/mine"),
        ("output_dir: $SCRATCH/x", '--output_dir "$SCRATCH/run"'),
        ('output_dir: "a\\nb"', "name one, such as runs/mine"),
        ("use_vllm: maybe", "needed: true or false"),
        ("method: dpo", "grpo"),
    ],
)
def test_what_it_cannot_use_is_one_line_and_status_2(recipe: Path, text: str, message: str) -> None:
    recipe.write_text(text, encoding="utf-8")
    done = call(recipe)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--output_dir"], "output_dir has no value on the command line"),
        (["--output_dir="], "name one, such as runs/mine"),
        (["--output_dir", "--seed", "1"], "output_dir has no value on the command line"),
    ],
)
def test_a_folder_without_a_name_is_refused(recipe: Path, overrides: list[str], message: str) -> None:
    done = call(recipe, *overrides)
    assert done.returncode == 2
    assert message in done.stderr
