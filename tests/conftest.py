"""Fixtures that several test files share: the shipped tiny base, and a fast GRPO run from it."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from transformers import Qwen2Config, Qwen2ForCausalLM

from helpers.chat_tokenizers import qwen_tokenizer
from mini_r1.program.failures import in_words
from mini_r1.recipe.read import parse_recipe
from mini_r1.train.run import run

ROOT = Path(__file__).parents[1]
TINY_BASE = ROOT / "assets" / "tiny-countdown-base"
TINY_RECIPE = ROOT / "receipes" / "grpo-tiny-countdown.yaml"
# A real run of seconds: 4 puzzles x 4 completions of at most 64 tokens a step.
SMALL = {
    "model_name_or_path": TINY_BASE,
    "max_samples": 200,
    "eval_puzzles": 8,
    "max_steps": 4,
    "save_steps": 2,
    "eval_steps": 2,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 8,
    "num_generations": 4,
    "num_iterations": 1,
    "skip_zero_advantage": "false",
    "max_completion_length": 64,
}
# Also where the tests themselves run under `nohup`, or behind an `&` in a script: what they start would inherit that
# a closed terminal, or Ctrl-C, is ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
Train = Callable[..., int]
Main = Callable[[list[str]], int]


def as_program(main: Main) -> Main:
    """A script's main as the script runs it: what it raises is a line on stderr and a status."""

    def run_in_words(arguments: list[str]) -> int:
        try:
            with in_words():
                return main(arguments)
        except SystemExit as ended:
            return int(ended.code or 0)
        raise AssertionError("in_words lets nothing through")

    return run_in_words


@pytest.fixture(scope="session")
def small_arguments() -> list[str]:
    """The command line of a small run of the tiny recipe, without its output folder."""
    overrides = [text for key, value in SMALL.items() for text in (f"--{key}", str(value))]
    return ["--config", str(TINY_RECIPE), *overrides]


@pytest.fixture
def train(small_arguments: list[str]) -> Iterator[Train]:
    """Run the tiny recipe, small, in this process: `train(output_folder, "--key", "value", ...)` -> exit status."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield lambda folder, *more: run(*parse_recipe([*small_arguments, "--output_dir", str(folder), *more]))
    for number, handler in handlers.items():
        signal.signal(number, handler)


def dry_run(recipe: Path, *more: str) -> str:
    """What `run_r1_grpo.py --config RECIPE --dry_run` prints on a machine without a GPU."""
    program = [sys.executable, str(ROOT / "scripts" / "run_r1_grpo.py"), "--config", str(recipe), "--dry_run", *more]
    ended = subprocess.run(program, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    return ended.stdout + ended.stderr


@pytest.fixture(scope="session")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Qwen2 that reads any text, a token a byte; it has learned nothing."""
    folder = tmp_path_factory.mktemp("byte") / "model"
    tokenizer = qwen_tokenizer()
    tokenizer.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8192,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, small_arguments: list[str]) -> Path:
    """The folder of a small run of the tiny recipe, evaluated: every file in it is by its real writer. Copy it.

    It is made once, whichever of pytest's workers asks first.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "finished" / "run"
    with FileLock(shared / "finished.lock"):
        if not (folder / "evaluation.json").exists():
            train = [sys.executable, str(ROOT / "scripts" / "run_r1_grpo.py"), *small_arguments]
            subprocess.run([*train, "--output_dir", str(folder)], cwd=ROOT, check=True)
            evaluate = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"))["main"]
            out = ["--out", str(folder / "evaluation.json")]
            assert evaluate([str(TINY_BASE), str(folder), "--puzzles", "16", *out]) == 0
    return folder
