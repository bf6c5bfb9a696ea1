"""Trimming: log-probabilities, entropies and gradients are TRL's, with most of the padding left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from mini_r1.recipe import parse_recipe
from mini_r1.samples import SampleRecorder
from mini_r1.training import build_trainer
from mini_r1.trimming import TrimmedGRPOTrainer

PROMPT, LONGEST = 22, 40
Outputs = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def trainer(small_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrimmedGRPOTrainer]:
    folder = tmp_path_factory.mktemp("trimming")
    recipe = parse_recipe([*small_arguments, "--output_dir", str(folder), "--report_to", "none"])
    yield build_trainer(*recipe, SampleRecorder(Path(folder), per_step=0))


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    """Nine completions of 1 to 33 tokens, none as long as the padding that TRL would keep for another micro-batch."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, 200, (9, PROMPT + LONGEST), generator=generator)
    mask = torch.ones_like(input_ids)
    for row, length in enumerate([5, 33, 1, 12, 12, 30, 2, 8, 20]):
        mask[row, PROMPT + length :] = 0
    mask[3, :4] = 0  # a shorter prompt
    return {"input_ids": input_ids, "attention_mask": mask, "logits_to_keep": LONGEST, "compute_entropy": True}


def compute(trainer: TrimmedGRPOTrainer, batch: dict[str, Any], ours: bool, buckets: int = 1) -> Outputs:
    """Log-probabilities and entropies of the completions' tokens, and the gradient of a loss with a weight per row."""
    trainer.length_buckets = buckets
    kind = TrimmedGRPOTrainer if ours else GRPOTrainer
    model: Any = trainer.model
    model.zero_grad()
    logps, entropies, _ = kind._get_per_token_logps_and_entropies(trainer, model, **batch)
    assert logps.shape == (9, LONGEST)
    mask = batch["attention_mask"][:, -LONGEST:]
    weights = torch.arange(1, 10)[:, None] * mask
    (logps * weights).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logps.detach()[mask.bool()], entropies.detach()[mask.bool()], gradients


@pytest.mark.parametrize("buckets", [1, 4, 20])
def test_values_and_gradients_are_those_of_trl(
    trainer: TrimmedGRPOTrainer, batch: dict[str, Any], buckets: int
) -> None:
    ours, theirs = compute(trainer, batch, True, buckets), compute(trainer, batch, False)
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    assert ours[2].keys() == theirs[2].keys()
    for name, gradient in theirs[2].items():
        error = (ours[2][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-4, (name, error)


@pytest.mark.parametrize(("buckets", "widths"), [(1, [33]), (3, [33, 12, 5])])
def test_no_more_columns_are_computed_than_the_longest_completion_needs(
    trainer: TrimmedGRPOTrainer, batch: dict[str, Any], buckets: int, widths: list[int]
) -> None:
    seen: list[int] = []
    model: Any = trainer.model
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1] - PROMPT), with_kwargs=True
    )
    compute(trainer, batch, True, buckets)
    hook.remove()
    assert seen == widths


def test_trl_still_calls_the_method_that_is_overridden() -> None:
    """A private name: when the pin of TRL moves, look here first."""
    source = Path(str(GRPOTrainer.__init__.__code__.co_filename)).read_text(encoding="utf-8")
    assert source.count("self._get_per_token_logps_and_entropies(") >= 2


def test_training_uses_it(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = TrimmedGRPOTrainer._get_per_token_logps_and_entropies

    def spy(self: TrimmedGRPOTrainer, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.length_buckets)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TrimmedGRPOTrainer, "_get_per_token_logps_and_entropies", spy)
    assert train(tmp_path, "--max_steps", "1", "--eval_strategy", "no", "--length_buckets", "3") == 0
    assert set(seen) == {3}
