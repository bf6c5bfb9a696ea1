"""Fixtures that several test files share: the shipped tiny base, and a fast GRPO run from it."""

import runpy
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_r1.failures import in_words
from mini_r1.recipe import parse_recipe
from mini_r1.training import run

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
    "max_completion_length": 64,
}
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


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, small_arguments: list[str]) -> Path:
    """The folder of a small run of the tiny recipe, evaluated: every file in it is by its real writer. Copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    assert run(*parse_recipe([*small_arguments, "--output_dir", str(folder)])) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    evaluate = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"))["main"]
    assert evaluate([str(TINY_BASE), str(folder), "--puzzles", "16", "--out", str(folder / "evaluation.json")]) == 0
    return folder
