"""Every entry with a real pretrained chat model: its BPE tokenizer, its ChatML template, its end tokens.

SmolLM2-135M-Instruct from the package registry. The runs are of a few short completions: that each entry works with
such a model, not how well it learns. With ZeRO-3 and vLLM it is in test_production.py.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig

from conftest import ROOT
from helpers.requirements import require_module, require_small_model
from mini_r1.policy.loading import load_tokenizer
from mini_r1.train.qlora import merge_adapter

pytestmark = pytest.mark.slow

GRPO = ROOT / "receipes" / "grpo-smollm2-135m-countdown.yaml"
SFT = ROOT / "receipes" / "sft-smollm2-135m-countdown.yaml"
FEW: dict[str, Any] = {
    "max_samples": 100,
    "max_steps": 2,
    "save_steps": 2,
    "eval_strategy": "no",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_iterations": 2,
    "num_generations": 2,
    "max_completion_length": 24,
    "report_to": "none",
}
ADAPTER: dict[str, Any] = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}
ASKED = ("--numbers", 19, 36, 55, "--target", 72, "--max-completion-length", 24)


def script(name: str, *words: object) -> str:
    """Run a script as a user does; return what it printed."""
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def train(recipe: Path, folder: Path, name: str = "run_r1_grpo.py", **more: Any) -> str:
    settings = {**FEW, "output_dir": folder, **more}
    return script(name, "--config", recipe, *(word for key, value in settings.items() for word in (f"--{key}", value)))


@pytest.fixture(scope="module")
def model() -> str:
    return require_small_model()


@pytest.fixture(scope="module")
def run(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GRPO run of two steps, whose two updates share a generation."""
    folder = tmp_path_factory.mktemp("small") / "run"
    train(GRPO, folder, model_name_or_path=model)
    return folder


def samples(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "completion_samples" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_grpo_keeps_the_models_template_and_end_token(run: Path) -> None:
    tokenizer = load_tokenizer(str(run))
    assert tokenizer.eos_token == "<|im_end|>" and "<|im_start|>" in str(tokenizer.chat_template)
    written = samples(run)
    assert written and not any("<|im_end|>" in one["completion"] for one in written)
    assert json.loads((run / "run.json").read_text())["steps"] == 2


def test_evaluate_ask_and_report_take_it(run: Path) -> None:
    out = run / "evaluation.json"
    few = ("--puzzles", 4, "--samples", 2, "--max-completion-length", 24)
    said = script("evaluate.py", run, *few, "--out", out)
    assert "pass@1" in said and re.search(r"RL has (something|next to nothing|little left)", said)
    assert "<think>" in script("ask.py", run, *ASKED)
    assert "index.html" in script("report.py", run)


def test_a_dry_run_says_ready_and_how_much_memory(model: str, tmp_path: Path) -> None:
    planned = train(GRPO, tmp_path / "run", model_name_or_path=model, dry_run=True)
    assert "preflight: ready" in planned
    assert re.search(
        r"Memory per training process \(134\.5 M parameters|Memory per training process \(0\.13 B", planned
    )
    assert "ends in <|im_end|>" in planned.replace("'", "")


def test_the_memory_that_a_dry_run_predicts_is_what_a_run_takes(model: str, tmp_path: Path) -> None:
    """Beyond what Python and the libraries take, which a dry run shows; the second step has the optimizer's moments."""
    every = {"num_iterations": 1, "skip_zero_advantage": False}  # it solves nothing: all would be skipped
    settings = {**FEW, **every, "model_name_or_path": model, "save_strategy": "no"}
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, str(ROOT / "scripts" / "run_r1_grpo.py"), "--config", str(GRPO), *words]
    planned, libraries = peak_of([*command, "--output_dir", str(tmp_path / "dry"), "--dry_run"])
    _, taken = peak_of([*command, "--output_dir", str(tmp_path / "run")])
    predicted = float(re.findall(r"at the peak +([\d.]+) GiB", planned)[0]) * 2**30
    assert 0.75 < (taken - libraries) / predicted < 1.25, (taken / 2**30, libraries / 2**30, predicted / 2**30)


def peak_of(command: list[str]) -> tuple[str, int]:
    """What a command prints, and the bytes of memory that its process had at most."""
    measured = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)\n"
        "print(done.stdout, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, sep='\\n', end='')\n"
        "sys.exit(done.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", measured, *command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:]
    printed, _, kibibytes = done.stdout.rpartition("\n")
    return printed, int(kibibytes) * 1024


def test_base_style_prompts_work_with_a_chat_models_tokenizer(model: str, tmp_path: Path) -> None:
    planned = train(GRPO, tmp_path / "run", model_name_or_path=model, prompt_style="base", dry_run=True)
    assert "plain text" in planned and "preflight: ready" in planned


def test_a_4_bit_adapter_is_trained_and_resumed(model: str, tmp_path: Path) -> None:
    require_module("bitsandbytes", "make install-dev")
    more: dict[str, Any] = {"model_name_or_path": model, **ADAPTER, "load_in_4bit": True}
    train(GRPO, tmp_path, **more)
    said = train(GRPO, tmp_path, **more, max_steps=3)
    assert "resuming from" in said and "step 2" in said
    in_4_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    merge_adapter(model, tmp_path, in_4_bits, dtype=torch.float32).save_pretrained(tmp_path / "merged")
    load_tokenizer(str(tmp_path)).save_pretrained(tmp_path / "merged")
    assert "<think>" in script("ask.py", tmp_path / "merged", *ASKED)


def test_an_adapter_is_trained_and_asked(model: str, tmp_path: Path) -> None:
    train(GRPO, tmp_path, model_name_or_path=model, **ADAPTER)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert "<think>" in script("ask.py", tmp_path, *ASKED)


def test_a_cold_start_then_grpo(model: str, tmp_path: Path) -> None:
    more = {"model_name_or_path": model, "max_completion_length": 200, "save_strategy": "no", "logging_steps": 1}
    train(SFT, tmp_path / "sft", "run_sft.py", **more)
    state = json.loads((tmp_path / "sft" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == 2 and max(losses) < 4  # of a pretrained model; that of a random one is 10.8
    assert "preflight: ready" in train(GRPO, tmp_path / "grpo", model_name_or_path=tmp_path / "sft", dry_run=True)
