"""Training: a real GRPO run leaves everything it should, and goes on after an interrupt as if there had been none."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import ROOT, TINY_BASE, Train
from mini_r1.policy.checkpoints import read_checkpoint
from mini_r1.preflight.checks import check_run
from mini_r1.program.problems import UserError
from mini_r1.recipe.read import load_tokenizer, parse_recipe, read_recipe
from mini_r1.runs.identity import RunRecord, find_record
from mini_r1.runs.records import points, read_log
from mini_r1.tasks.countdown.puzzles import puzzle_key
from mini_r1.train.data import choose_prompt_settings, prepare_datasets
from mini_r1.train.run import run

SCRIPT = ROOT / "scripts" / "run_r1_grpo.py"
Weights = dict[str, torch.Tensor]


def weights(folder: Path) -> Weights:
    """The parameters of the model saved in `folder`."""
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def equal(ours: Weights, theirs: Weights) -> bool:
    """Whether two models are the same, bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def unbroken(finished_run: Path) -> Path:
    """The output folder of a whole run of four steps, made by the script as a user calls it."""
    return finished_run


def test_run_leaves_model_tokenizer_card_checkpoints_curves_and_samples(unbroken: Path) -> None:
    """The model saved is one that learned, and everything about the run lies beside it."""
    assert not equal(weights(unbroken), weights(ROOT / "assets" / "tiny-countdown-base"))
    assert AutoTokenizer.from_pretrained(unbroken).chat_template
    assert "countdown" in (unbroken / "README.md").read_text()
    assert {path.name for path in unbroken.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    assert list(unbroken.rglob("events.out.tfevents.*"))
    log = read_log(unbroken / "trainer_state.json")
    assert sorted(points(log, "rewards/equation_reward_func/mean")) == [1, 2, 3, 4]
    assert sorted(points(log, "thinking/attempts")) == [1, 2, 3, 4]
    assert sorted(points(log, "eval_rewards/equation_reward_func/mean")) == [0, 2, 4]
    samples = [json.loads(line) for line in (unbroken / "completion_samples" / "samples.jsonl").open()]
    assert {sample["split"] for sample in samples} == {"train", "test"}
    assert {sample["step"] for sample in samples if sample["split"] == "train"} == {0, 1, 2, 3}
    text = (unbroken / "completion_samples" / "completion_samples.txt").read_text()
    assert text.count("equation ") >= len(samples)
    assert (unbroken / "completion_samples" / "success_completion_samples.txt").exists()
    run = json.loads((unbroken / "run.json").read_text())
    assert run["steps"] == 4
    assert run["seed"] == 42


def test_a_run_leaves_its_recipe_as_it_was_read_and_loads_its_tokenizer_once(
    tmp_path: Path, small_arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, which leaves out the evaluation at the start; what the run changes for the trainer is in a copy."""
    load, loaded = AutoTokenizer.from_pretrained, []

    def counted(name: str, **more: object) -> object:
        loaded.append(name)
        return load(name)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    for steps in ("2", "4"):
        recipe = parse_recipe([*small_arguments, "--output_dir", str(tmp_path), "--max_steps", steps])
        before = [vars(part).copy() for part in recipe]
        loaded.clear()
        assert run(*recipe) == 0
        assert len(loaded) == 1
        assert [vars(part) for part in recipe] == before


def test_saved_weights_have_the_mode_of_any_other_file(unbroken: Path) -> None:
    """Their library makes them readable by their owner alone, which a server under another user finds out too late."""
    usual = (unbroken / "README.md").stat().st_mode
    saved = list(unbroken.rglob("*.safetensors"))
    assert len(saved) == 3
    assert all(weights.stat().st_mode == usual for weights in saved)


def test_resumed_run_equals_an_unbroken_one(unbroken: Path, tmp_path: Path, train: Train) -> None:
    """From the last checkpoint in the folder: same weights, same curves, no sample twice."""
    shutil.copytree(unbroken / "checkpoint-2", tmp_path / "checkpoint-2")
    shutil.copytree(unbroken / "completion_samples", tmp_path / "completion_samples")
    assert train(tmp_path) == 0
    assert equal(weights(tmp_path), weights(unbroken))
    ours, theirs = (
        points(read_log(f / "trainer_state.json"), "rewards/equation_reward_func/mean") for f in (tmp_path, unbroken)
    )
    assert ours == theirs
    samples = Path("completion_samples") / "samples.jsonl"
    steps = [[json.loads(line)["step"] for line in (f / samples).open()] for f in (tmp_path, unbroken)]
    assert sorted(steps[0]) == sorted(steps[1])


@pytest.mark.parametrize("reuse", [("--num_iterations", "2"), ("--steps_per_generation", "2")])
def test_a_run_resumed_in_the_middle_of_a_generation_equals_an_unbroken_one(
    reuse: tuple[str, str], tmp_path: Path, train: Train
) -> None:
    """The second of two updates learns from what was written before the first, of which the checkpoint has a copy."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    more = [*reuse, "--save_steps", "3", "--eval_strategy", "no", "--lr_scheduler_type", "constant"]
    assert train(whole, *more, "--max_steps", "6") == 0
    assert {path.parent.name for path in whole.glob("*/generation-0.pt")} == {"checkpoint-3"}
    shutil.copytree(whole / "checkpoint-3", resumed / "checkpoint-3")
    assert train(resumed, *more, "--max_steps", "6") == 0
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_resumes_from_the_checkpoint_that_is_named(unbroken: Path, tmp_path: Path, train: Train) -> None:
    """From a path outside the output folder."""
    assert train(tmp_path, "--resume_from_checkpoint", str(unbroken / "checkpoint-2")) == 0
    assert equal(weights(tmp_path), weights(unbroken))


def test_a_run_resumed_in_its_second_epoch_equals_an_unbroken_one(tmp_path: Path, train: Train) -> None:
    """18 puzzles, 4 a step: the fifth step starts the second epoch, in another order than the first."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    more = ["--max_samples", "20", "--max_steps", "6", "--save_steps", "5", "--eval_strategy", "no"]
    assert train(whole, *more, "--eval_on_start", "false") == 0
    shutil.copytree(whole / "checkpoint-5", resumed / "checkpoint-5")
    assert train(resumed, *more, "--eval_on_start", "false") == 0
    assert equal(weights(resumed), weights(whole))


def test_another_seed_gives_another_run(unbroken: Path, tmp_path: Path, train: Train) -> None:
    """Else the test of resuming could not fail."""
    assert train(tmp_path, "--seed", "43", "--max_steps", "2", "--eval_strategy", "no") == 0
    assert not equal(weights(tmp_path), weights(unbroken / "checkpoint-2"))


def test_held_out_puzzles_are_never_trained_on(small_arguments: list[str]) -> None:
    """As multisets of numbers with their target, not only as rows."""
    script, training, model = parse_recipe(small_arguments)
    train_side, test_side = prepare_datasets(script, load_tokenizer(script, training, model))
    keys = [{puzzle_key(row["nums"], row["target"]) for row in side} for side in (train_side, test_side)]
    assert keys[0]
    assert keys[1]
    assert not keys[0] & keys[1]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signal_leaves_a_checkpoint_and_the_usual_exit_status(
    number: signal.Signals, status: int, tmp_path: Path, small_arguments: list[str]
) -> None:
    """A run of very many steps stops soon after the signal, at a step that is saved."""
    more = ["--output_dir", str(tmp_path), "--max_steps", "10000", "--save_steps", "5000", "--eval_strategy", "no"]
    command = [sys.executable, str(SCRIPT), *small_arguments, *more, "--eval_on_start", "false"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    samples = tmp_path / "completion_samples" / "samples.jsonl"
    deadline = time.monotonic() + 120
    while not samples.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"{number.name}: saving a checkpoint" in output
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert read_checkpoint(checkpoint).step >= 1


# --- what the prompts rest on --------------------------------------------------------------------------------------


def test_a_run_that_is_resumed_another_day_keeps_its_date(tmp_path: Path, train: Train) -> None:
    """Templates such as Llama 3.2's write today's date into each prompt."""
    fast = ("--eval_strategy", "no", "--eval_on_start", "false", "--max_samples", "100")
    assert train(tmp_path, "--max_steps", "2", *fast) == 0
    record = find_record(tmp_path)
    assert record is not None
    today = record.prompt["date"]
    for file in (tmp_path / "run.json", tmp_path / "checkpoint-2" / "complete.json"):
        text = file.read_text(encoding="utf-8")
        assert f'"date": "{today}"' in text
        file.write_text(text.replace(f'"date": "{today}"', '"date": "2025-12-24"'), encoding="utf-8")
    assert train(tmp_path, "--max_steps", "4", *fast) == 0
    for folder in (tmp_path, tmp_path / "checkpoint-4"):
        record = find_record(folder)
        assert record is not None
        assert record.prompt["date"] == "2025-12-24"


ONLY_IN_2025 = "{% if strftime_now('%Y') != '2025' %}{{ raise_exception('too late') }}{% endif %}"


def test_a_dry_run_renders_the_prompts_of_the_day_on_which_the_run_began(
    tmp_path: Path, train: Train, small_arguments: list[str]
) -> None:
    """This template refuses every other day, by which it shows what it was told."""
    base = tmp_path / "base"
    shutil.copytree(TINY_BASE, base)
    fast = ("--eval_strategy", "no", "--eval_on_start", "false", "--max_samples", "100", "--max_prompt_length", "200")
    more = ["--model_name_or_path", str(base), "--output_dir", str(tmp_path / "run"), *fast]
    assert train(tmp_path / "run", "--max_steps", "2", *more) == 0
    (base / "chat_template.jinja").write_text(ONLY_IN_2025 + (base / "chat_template.jinja").read_text())
    recipe = read_recipe([*small_arguments, *more, "--max_steps", "4"])  # the same prompt, where there is one
    assert [problem.name for problem in check_run(*recipe, {}).problems] == ["the prompt"]
    for file in (tmp_path / "run" / "run.json", tmp_path / "run" / "checkpoint-2" / "complete.json"):
        file.write_text(re.sub(r'"date": "[^"]+"', '"date": "2025-12-24"', file.read_text()))
    assert check_run(*recipe, {}).problems == []


@pytest.mark.parametrize("adapter", [True, False])
def test_a_base_that_was_changed_under_a_run_is_noticed(
    adapter: bool, tmp_path: Path, train: Train, small_arguments: list[str]
) -> None:
    """The adapter would go on training on other weights, the policy on other prompts; by the dry run too."""
    base, output = tmp_path / "base", tmp_path / "run"
    shutil.copytree(TINY_BASE, base)
    fast = ("--eval_strategy", "no", "--eval_on_start", "false", "--max_samples", "100", "--max_prompt_length", "200")
    more = ["--model_name_or_path", str(base), "--output_dir", str(output), "--use_peft", str(adapter), *fast]
    assert train(output, "--max_steps", "1", *more) == 0
    recipe = read_recipe([*small_arguments, *more, "--max_steps", "2"])
    assert check_run(*recipe, {}).problems == []
    template, weights = base / "chat_template.jinja", base / "model.safetensors"
    for file, content, words in (
        (template, b"Hello! " + template.read_bytes(), "the prompt is a different one now"),
        (weights, weights.read_bytes()[:-4] + b"1234", "the weights in" if adapter else ""),
    ):
        before = file.read_bytes()
        file.write_bytes(content)
        said = "; ".join(map(str, check_run(*recipe, {}).problems))
        assert words in said
        assert bool(said) == bool(words)
        if words:
            with pytest.raises(UserError, match=words):
                train(output, "--max_steps", "2", *more)
        file.write_bytes(before)
    assert train(output, "--max_steps", "2", *more) == 0


def test_variables_and_date_reach_the_prompts_of_both_sides(small_arguments: list[str]) -> None:
    script, training, model = parse_recipe([*small_arguments, "--chat_template_kwargs", '{"persona": "Ada"}'])
    tokenizer = load_tokenizer(script, training, model)
    tokenizer.chat_template = "{{ persona }}, {{ strftime_now('%d.%m.%Y') }}:" + str(tokenizer.chat_template)
    began = RunRecord(prompt={"date": "2025-12-24"})
    settings = choose_prompt_settings(script, training, began)
    script.max_prompt_length = 200
    for side in prepare_datasets(script, tokenizer, prompt_settings=settings):
        assert all(prompt.startswith("Ada, 24.12.2025:<") for prompt in side["prompt"])
