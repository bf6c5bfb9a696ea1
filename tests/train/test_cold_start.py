"""The cold start: what is learned of a demonstration, a real run and its resume, and GRPO from there."""

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from safetensors.torch import load_file

from conftest import ROOT, TINY_BASE, Train, as_program
from mini_r1.policy.loading import load_tokenizer
from mini_r1.program.problems import ProblemError
from mini_r1.prompts.build import PromptWriter
from mini_r1.recipe.method import IDLE_IN_SFT, SHARED
from mini_r1.recipe.read import read_recipe
from mini_r1.results.report import write_report
from mini_r1.runs.records import read_progress
from mini_r1.tasks.countdown.task import Countdown
from mini_r1.tasks.demonstrations import demonstrate
from mini_r1.train.cold_start import NOT_LEARNED, tokenize

SFT = ["--method", "sft", "--max_completion_length", "400", "--learning_rate", "1e-3"]
ROW: dict[str, Any] = {"nums": [3, 5, 7], "target": 15}


@pytest.fixture(scope="module")
def writer() -> PromptWriter:
    return PromptWriter(load_tokenizer(str(TINY_BASE)), Countdown())


def rows(writer: PromptWriter, *extra: dict[str, Any]) -> Dataset:
    problems = [ROW, *extra]
    return Dataset.from_list([row | {"prompt": writer.write(row), "split": "train"} for row in problems])


def test_the_loss_is_of_the_demonstration_and_its_end_alone(writer: PromptWriter) -> None:
    tokenizer: Any = writer.tokenizer
    (row,) = tokenize(rows(writer), Countdown(), tokenizer, limit=400, seed=1).to_list()
    prompt = tokenizer(text=writer.write(ROW))["input_ids"]
    shown = demonstrate(Countdown(), ROW, 1)
    assert row["input_ids"][: len(prompt)] == prompt  # as GRPO has it
    assert row["labels"][: len(prompt)] == [NOT_LEARNED] * len(prompt)
    assert row["labels"][len(prompt) :] == row["input_ids"][len(prompt) :]
    assert tokenizer.decode(row["labels"][len(prompt) : -1]) == shown
    assert row["labels"][-1] == tokenizer.eos_token_id


def test_what_has_none_or_too_long_a_one_is_left_out(writer: PromptWriter, caplog: pytest.LogCaptureFixture) -> None:
    problems = rows(writer, {"nums": [1, 1], "target": 5})
    assert len(tokenize(problems, Countdown(), writer.tokenizer, limit=400, seed=1)) == 1
    assert "1 of 2 problems have none, 0 have one of more than 400 tokens" in caplog.text
    with pytest.raises(ProblemError, match=r"1 have one of more than 10 tokens.*raise max_completion_length"):
        tokenize(problems, Countdown(), writer.tokenizer, limit=10, seed=1)


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def test_a_run_learns_says_what_it_is_and_grpo_continues_from_it(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "sft"
    more = ["--max_steps", "12", "--eval_steps", "6", "--save_steps", "6", "--num_train_epochs", "3"]
    assert train(out, *SFT, *more) == 0
    log = read_progress(out).log
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert len(losses) == 3 and losses[-1] < losses[0] - 0.2
    assert all(math.isfinite(entry["loss"]) for entry in log if "loss" in entry)
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["method"] == "sft"
    card = (out / "README.md").read_text()
    assert "demonstrations (SFT)" in card and "- sft" in card and "GRPO (group" not in card
    assert {path.name for path in write_report(out)} == {"aha.png", "predicted.png", "loss.png", "index.html"}
    assert "not recorded" not in (out / "report" / "index.html").read_text()
    assert train(out, *SFT, *more) == 0  # finished: nothing is left to do
    assert train(tmp_path / "grpo", "--model_name_or_path", str(out), "--max_steps", "1") == 0
    lineage = json.loads((tmp_path / "grpo" / "run.json").read_text())["lineage"]
    assert lineage[-1]["train_digest"] == run["data"]["train_digest"]


def test_evaluate_and_report_take_such_a_run(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "sft"
    assert train(out, *SFT, "--max_steps", "2") == 0
    for name in ("evaluate", "report"):
        main = as_program(runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))["main"])
        more = ["--puzzles", "4", "--out", str(out / "evaluation.json")] if name == "evaluate" else []
        assert main([str(out), *more]) == 0
    page = (out / "report" / "index.html").read_text()
    assert "SFT" in page


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(train: Train, tmp_path: Path) -> None:
    """Also in the second pass over the data, whose order is another one."""
    few = ["--max_samples", "80", "--eval_strategy", "no"]  # 72 to train on: 5 steps of 16 in a pass
    steps = ["--save_steps", "6", "--lr_scheduler_type", "constant", "--max_steps"]
    assert train(tmp_path / "whole", *SFT, *few, *steps, "8") == 0
    assert train(tmp_path / "resumed", *SFT, *few, *steps, "6") == 0
    assert train(tmp_path / "resumed", *SFT, *few, *steps, "8") == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all((whole[name] == resumed[name]).all() for name in whole)
    logs = [read_progress(tmp_path / name).log for name in ("whole", "resumed")]
    counts = [[entry["num_tokens"] for entry in log if "num_tokens" in entry] for log in logs]
    assert counts[0] == counts[1] == sorted(counts[0])


def test_it_resumes_as_no_other_method(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path, *SFT, "--max_steps", "2") == 0
    with pytest.raises(ProblemError, match=r'method: "sft" -> "grpo"'):
        train(tmp_path, "--max_steps", "4")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [[], ["--load_in_4bit", "true"]], ids=["lora", "qlora"])
def test_an_adapter_is_trained(train: Train, tmp_path: Path, kind: list[str]) -> None:
    more = ["--use_peft", "true", "--lora_r", "4", "--lora_target_modules", "all-linear", *kind]
    assert train(tmp_path, *SFT, "--max_steps", "2", *more) == 0
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_every_key_is_shared_or_said_to_be_idle(small_arguments: list[str]) -> None:
    assert not SHARED & IDLE_IN_SFT
    script, training, _ = read_recipe([*small_arguments, "--method", "sft", "--use_vllm", "true"])
    assert (training.num_generations, training.use_vllm, training.learning_rate) == (1, False, 4e-4)
    assert "num_generations" in script.given
    assert read_recipe([*small_arguments, "--method", "grpo"])[1].num_generations == 4
