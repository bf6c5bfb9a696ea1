"""cuDNN's attention, some of whose gradients are NaN on an H100, is off wherever a model is trained or used."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from conftest import TINY_BASE, Train
from mini_r1.policy.loading import load_model

ENTRIES: dict[str, Callable[[Train, Path], object]] = {
    "GRPO": lambda train, out: train(out, "--max_steps", "1", "--eval_strategy", "no"),
    "SFT": lambda train, out: train(out, "--method", "sft", "--max_completion_length", "400", "--max_steps", "1"),
    "evaluate and ask": lambda train, out: load_model(str(TINY_BASE)),
}


@pytest.fixture(autouse=True)
def on() -> Iterator[None]:
    """As PyTorch starts."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("entry", ENTRIES)
def test_it_is_off_and_the_other_kernels_are_not(entry: str, train: Train, tmp_path: Path) -> None:
    ENTRIES[entry](train, tmp_path / "run")
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled() and torch.backends.cuda.flash_sdp_enabled()
