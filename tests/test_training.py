"""A GRPO run on the real TRL trainer: what it leaves behind, and that it goes on where it stopped."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from mini_r1.countdown import puzzle_key
from mini_r1.recipe import parse_recipe
from mini_r1.training import find_checkpoint, load_tokenizer, prepare_datasets, steps_done

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "run_r1_grpo.py"
SOLVED = "rewards/equation_reward_func/mean"


def history(folder: Path) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return log


def same_weights(first: Path, second: Path) -> bool:
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (first, second)]
    return all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_a_run_leaves_all_that_it_should(train: Any, tmp_path: Path, random_policy: Path) -> None:
    assert train(tmp_path) == 0
    log = history(tmp_path)
    assert [entry["step"] for entry in log if f"eval_{SOLVED}" in entry] == [0, 2, 4]
    steps = [entry for entry in log if SOLVED in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    assert {"rewards/format_reward_func/mean", "thinking/attempts", "verdict/no_answer"} <= steps[0].keys()
    assert not same_weights(random_policy, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template
    assert "countdown" in (tmp_path / "README.md").read_text()
    samples = [json.loads(line) for line in (tmp_path / "completion_samples" / "samples.jsonl").open()]
    assert {sample["split"] for sample in samples} == {"train", "test"}
    assert {sample["step"] for sample in samples if sample["split"] == "train"} == {0, 1, 2, 3}
    summary = json.loads((tmp_path / "run.json").read_text())
    assert (summary["steps"], summary["seed"]) == (4, 42)
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents.*")).parent)).Reload()
    assert f"train/{SOLVED}" in events.Tags()["scalars"]


@pytest.mark.parametrize("named", [False, True], ids=["last checkpoint", "named checkpoint"])
def test_a_resumed_run_equals_an_unbroken_one(train: Any, tmp_path: Path, named: bool) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert train(whole) == 0
    if named:
        assert train(resumed, "--resume_from_checkpoint", str(whole / "checkpoint-2")) == 0
    else:
        shutil.copytree(whole / "checkpoint-2", resumed / "checkpoint-2")
        assert train(resumed) == 0
    assert same_weights(whole, resumed)
    wanted = [entry[SOLVED] for entry in history(whole) if SOLVED in entry]
    assert [entry[SOLVED] for entry in history(resumed) if SOLVED in entry] == wanted


def test_another_seed_is_another_run(train: Any, tmp_path: Path) -> None:
    train(tmp_path / "a")
    train(tmp_path / "b", "--seed", "1")
    assert not same_weights(tmp_path / "a", tmp_path / "b")


def test_a_finished_run_is_left_as_it_is(train: Any, tmp_path: Path) -> None:
    train(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    assert train(tmp_path) == 0
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_evaluation_puzzles_are_held_out_and_carry_their_side(small_arguments: list[str]) -> None:
    script, training, model = parse_recipe(small_arguments)
    train_side, test_side = prepare_datasets(script, load_tokenizer(script, training, model))
    keys = [{puzzle_key(r["nums"], r["target"]) for r in side} for side in (train_side, test_side)]
    assert not keys[0] & keys[1]
    assert (len(train_side), len(test_side)) == (180, 8)
    assert set(test_side["split"]) == {"test"}


def test_no_checkpoint_means_from_the_start(small_arguments: list[str], tmp_path: Path) -> None:
    _, training, _ = parse_recipe([*small_arguments, "--output_dir", str(tmp_path / "new")])
    assert find_checkpoint(training) is None
    assert steps_done(None) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_to_go_on_from(
    small_arguments: list[str], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    command = [sys.executable, str(SCRIPT), *small_arguments, "--output_dir", str(tmp_path), "--max_steps", "500"]
    process = subprocess.Popen([*command, "--save_steps", "500"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step    2"):
            process.send_signal(number)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=60) == status
    assert "the same command goes on from there" in rest
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert steps_done(str(checkpoint)) < 500
    assert not (tmp_path / "model.safetensors").exists()


def test_script_refuses_a_bad_recipe_in_one_line() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--config", "no.yaml"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: there is no recipe 'no.yaml'")
