"""Fixtures that several test files share: a tiny policy on disk, and a fast GRPO run."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_r1.recipe import parse_recipe
from mini_r1.tiny_base import build_model
from mini_r1.tiny_tokenizer import build_tokenizer
from mini_r1.training import run

ROOT = Path(__file__).parents[1]
# A real run of seconds: 4 puzzles x 4 completions of at most 24 tokens a step.
SMALL = {
    "max_samples": 200,
    "eval_puzzles": 8,
    "max_steps": 4,
    "save_steps": 2,
    "eval_steps": 2,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 24,
    "learning_rate": 1e-3,
}
Train = Callable[..., int]


@pytest.fixture(scope="session")
def random_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained tiny policy and its tokenizer."""
    folder = tmp_path_factory.mktemp("random-policy")
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_arguments(random_policy: Path) -> list[str]:
    """The command line of a small run of the tiny recipe, without its output folder."""
    values = SMALL | {"model_name_or_path": random_policy}
    overrides = [text for key, value in values.items() for text in (f"--{key}", str(value))]
    return ["--config", str(ROOT / "receipes" / "grpo-tiny-countdown.yaml"), *overrides]


@pytest.fixture
def train(small_arguments: list[str]) -> Iterator[Train]:
    """Run the tiny recipe, small, in this process: `train(output_folder, "--key", "value", ...)` -> exit status."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda folder, *more: run(*parse_recipe([*small_arguments, "--output_dir", str(folder), *more]))
    for number, handler in handlers.items():
        signal.signal(number, handler)
