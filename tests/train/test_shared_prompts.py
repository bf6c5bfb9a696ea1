"""Prompts that are read once for a group: log-probabilities, entropies and gradients are TRL's."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from helpers.loss_inputs import log_probabilities_of_trl, loss_inputs
from mini_r1.recipe.read import parse_recipe
from mini_r1.train.samples import SampleRecorder
from mini_r1.train.trainer import R1Trainer, build_trainer

PROMPT, LONGEST, ROWS = 14, 20, 8


@pytest.fixture(scope="module")
def trainer(small_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[R1Trainer]:
    folder = tmp_path_factory.mktemp("sharing")
    recipe = parse_recipe([*small_arguments, "--output_dir", str(folder), "--report_to", "none"])
    trainer = build_trainer(*recipe, SampleRecorder(Path(folder), per_step=0))
    trainer.model.double()  # float32 rounds batches of other shapes differently, by 1e-5
    yield trainer


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    """Eight completions of 1 to 18 tokens, of three prompts: two that end alike, and one that is padded."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(5, 200, (3, PROMPT), generator=generator)
    prompts[1, 4:] = prompts[0, 4:]
    prompts[2, :5] = 0
    groups = torch.tensor([0, 0, 1, 0, 1, 2, 2, 1])
    ids = torch.cat([prompts[groups], torch.randint(5, 200, (ROWS, LONGEST), generator=generator)], dim=1)
    mask = torch.ones_like(ids)
    mask[groups == 2, :5] = 0
    for row, length in enumerate([5, 18, 1, 12, 12, 7, 2, 8]):
        mask[row, PROMPT + length :] = 0
    return {"input_ids": ids, "attention_mask": mask, "logits_to_keep": LONGEST}


def learn(trainer: R1Trainer, batch: dict[str, Any], advantages: list[float], ours: bool) -> dict[str, Any]:
    """Loss, entropy, gradients, and the tokens that pass through the layers."""
    model: Any = trainer.model.train()
    model.zero_grad()
    tokens: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    inputs = loss_inputs(batch, PROMPT, advantages)
    trainer.current_gradient_accumulation_steps = 1
    with log_probabilities_of_trl() if not ours else nullcontext():
        loss = trainer._compute_loss(model, inputs)
    loss.backward()
    hook.remove()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    entropy = trainer._metrics["train"]["entropy"][-1]
    return {"loss": loss.item(), "gradients": gradients, "entropy": entropy, "tokens": tokens}


@pytest.mark.parametrize("buckets", [1, 3])
@pytest.mark.parametrize("skips", [False, True])
def test_the_gradient_is_that_of_trl(
    trainer: R1Trainer, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch, buckets: int, skips: bool
) -> None:
    advantages = [1.0, -1.0, 0.5, 0.3, -0.5, 2.0, -2.0, 0.7]
    if skips:
        advantages[5:7] = [0.0, 0.0]  # a whole prompt's, so that it isn't read at all
    monkeypatch.setattr(trainer, "share_prompts", True)
    monkeypatch.setattr(trainer, "length_buckets", buckets)
    monkeypatch.setattr(trainer, "skip_zero_advantage", skips)
    theirs, ours = (learn(trainer, batch, advantages, is_ours) for is_ours in (False, True))
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-9)
    assert skips or ours["entropy"] == pytest.approx(theirs["entropy"], abs=1e-9)
    assert ours["gradients"].keys() == theirs["gradients"].keys()
    for name, gradient in theirs["gradients"].items():
        error = (ours["gradients"][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-7, (name, error)
    assert theirs["tokens"] == [ROWS * (PROMPT + LONGEST)]
    assert ours["tokens"][0] == (2 if skips else 3) * (PROMPT - 1)  # each prompt once, but for its last token
    assert len(ours["tokens"]) == 1 + buckets
    if buckets == 1:
        assert ours["tokens"][1] == (6 if skips else 8) * (1 + 18)


def test_what_needs_no_gradient_can_come_in_parts(
    trainer: R1Trainer, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TRL computes old and reference log-probabilities: `batch_size` rows at a time."""
    model: Any = trainer.model.eval()
    name = "_get_per_token_logps_and_entropies"
    monkeypatch.setattr(trainer, "share_prompts", True)
    monkeypatch.setattr(trainer, "length_buckets", 1)
    with torch.no_grad():
        theirs, ours = (
            getattr(kind, name)(trainer, model, **batch, batch_size=3)[0] for kind in (GRPOTrainer, R1Trainer)
        )
    counted = batch["attention_mask"][:, -LONGEST:].bool()
    torch.testing.assert_close(ours[counted], theirs[counted], atol=1e-9, rtol=1e-9)


def test_a_prompt_of_one_token_has_nothing_to_share(trainer: R1Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "share_prompts", True)
    ids = torch.tensor([[7, 8, 9], [7, 5, 6]])
    ask: Any = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "logits_to_keep": 2}
    ours = trainer._get_per_token_logps_and_entropies(trainer.model, **ask)[0]
    theirs = GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, **ask)[0]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("updates", [1, 2])
def test_completions_of_a_prompt_are_trained_on_together(
    trainer: R1Trainer, monkeypatch: pytest.MonkeyPatch, updates: int
) -> None:
    """Each update has the completions that TRL's shuffling gave it, in fewer micro-batches with the same prompt."""
    monkeypatch.setattr(trainer, "share_prompts", True)
    monkeypatch.setattr(trainer.args, "steps_per_generation", 4)
    monkeypatch.setattr(trainer.args, "gradient_accumulation_steps", 4 // updates)
    monkeypatch.setattr(trainer, "_step", 0)
    rows = torch.arange(16)
    made = {
        "prompt_ids": (rows // 4)[:, None].expand(16, 3) + 7,
        "prompt_mask": torch.ones(16, 3, dtype=torch.long),
        "completion_ids": rows[:, None],
        "num_items_in_batch": torch.tensor(16),
    }
    monkeypatch.setattr(trainer, "_generate_and_score_completions", lambda inputs: made)
    trainer.model.train()
    seen: list[list[dict[str, torch.Tensor]]] = []
    for kind in (GRPOTrainer, R1Trainer):
        monkeypatch.setattr(trainer, "_buffered_inputs", None)
        torch.manual_seed(0)
        batches = []
        for step in range(4):
            monkeypatch.setattr(trainer, "_step", step)
            batches.append(kind._prepare_inputs(trainer, {}))
        seen.append(batches)
    theirs, ours = seen
    per_update = 4 // updates
    for update in range(updates):
        mine, other = (batches[update * per_update : (update + 1) * per_update] for batches in (ours, theirs))
        written = [
            sorted(row for part in parts for row in part["completion_ids"].flatten().tolist())
            for parts in (mine, other)
        ]
        assert written[0] == written[1]
        reads = [sum(len(part["prompt_ids"].unique(dim=0)) for part in parts) for parts in (mine, other)]
        assert reads[0] < reads[1]
    for part in ours:
        assert (part["completion_ids"] // 4 + 7 == part["prompt_ids"]).all() and part["num_items_in_batch"] == 16
    if updates == 1:
        assert [len(part["prompt_ids"].unique(dim=0)) for part in ours] == [1] * 4
