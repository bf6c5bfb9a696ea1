"""A run that diverges ends in words, and nothing that is not finite is ever saved."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from conftest import TINY_BASE, Train
from mini_r1.generation.sampling import generate_completions
from mini_r1.policy.loading import load_model, load_tokenizer
from mini_r1.train.finite import NonFiniteError, all_finite
from mini_r1.train.trainer import R1Trainer

NO_EVALUATION = ["--eval_strategy", "no", "--eval_on_start", "false", "--save_steps", "1"]


def saved_weights(folder: Path) -> list[Path]:
    """All files of weights below a folder, each of which has to be finite."""
    files = sorted(folder.rglob("*.safetensors"))
    for file in files:
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file
    return files


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_bad_number_among_all_is_found(value: float, dtype: torch.dtype) -> None:
    first, second = nn.Linear(7, 5, dtype=dtype), nn.Linear(5, 3, dtype=dtype)
    assert all_finite([*first.parameters(), *second.parameters()])
    second.weight.data[2, 3] = value
    assert not all_finite([*first.parameters(), *second.parameters()])


def test_large_weights_are_no_reason_to_stop() -> None:
    """Their sum would overflow."""
    assert all_finite([nn.Parameter(torch.full((1000,), 6e4, dtype=torch.float16))])


def test_only_what_is_trained_and_held_here_counts() -> None:
    frozen = nn.Parameter(torch.tensor([math.nan]), requires_grad=False)
    sharded: Any = nn.Parameter(torch.empty(0))  # as DeepSpeed ZeRO-3 leaves it
    sharded.ds_tensor = torch.tensor([1.0, math.nan])
    assert all_finite([frozen, nn.Parameter(torch.empty(0))])
    assert not all_finite([sharded])


def test_a_learning_rate_far_too_high_ends_in_words(tmp_path: Path, train: Train) -> None:
    """Its first step leaves weights that are finite, and saved, but that no token can be sampled from."""
    with pytest.raises(NonFiniteError, match=r"diverged.*lower learning_rate \(it is 10000\)") as caught:
        train(tmp_path, "--learning_rate", "1e4", "--warmup_steps", "0", "--max_grad_norm", "0", *NO_EVALUATION)
    assert "step" in str(caught.value)
    assert not (tmp_path / "model.safetensors").exists()
    saved_weights(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_save(
    value: float, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its third step; the checkpoint of the second is kept, and named."""
    compute_loss = R1Trainer.compute_loss

    def spoilt(self: R1Trainer, *args: Any, **kwargs: Any) -> Any:
        loss = compute_loss(self, *args, **kwargs)
        return loss * value if self.state.global_step == 2 else loss

    monkeypatch.setattr(R1Trainer, "compute_loss", spoilt)
    with pytest.raises(NonFiniteError, match=rf"the loss is not finite.*step 3\..*{tmp_path / 'checkpoint-2'}"):
        train(tmp_path, *NO_EVALUATION)
    assert [file.parent.name for file in saved_weights(tmp_path)] == ["checkpoint-1", "checkpoint-2"]


def test_a_gradient_that_is_not_finite_stops_the_last_step_too(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite, and after the last step there would only be the save."""
    compute_loss = R1Trainer.compute_loss

    def spoilt(self: R1Trainer, *args: Any, **kwargs: Any) -> Any:
        loss = compute_loss(self, *args, **kwargs)
        if self.state.global_step == 1:
            loss.register_hook(lambda gradient: gradient * math.nan)
        return loss

    monkeypatch.setattr(R1Trainer, "compute_loss", spoilt)
    with pytest.raises(NonFiniteError, match=r"the weights are not finite.*step 2\."):
        train(tmp_path, *NO_EVALUATION, "--max_steps", "2")
    assert [file.parent.name for file in saved_weights(tmp_path)] == ["checkpoint-1"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_broken_policy_is_not_sampled_from(temperature: float) -> None:
    """Greedy decoding would go on with token 0 and say nothing."""
    model, tokenizer = load_model(str(TINY_BASE)), load_tokenizer(str(TINY_BASE))
    for parameter in model.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="probabilities are not finite"):
        generate_completions(
            model,
            tokenizer,
            ["1 + 1 ="],
            samples=2,
            temperature=temperature,
            max_completion_length=4,
            batch_size=2,
            seed=0,
        )
