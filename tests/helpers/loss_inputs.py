"""A batch as TRL's loss reads it, and its loss by stock TRL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from mini_r1.train.trainer import R1Trainer


def loss_inputs(batch: dict[str, Any], prompt: int, advantages: list[float]) -> dict[str, torch.Tensor]:
    """Rows of `input_ids` and `attention_mask`, of which the first `prompt` columns are the prompts'."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return {
        "prompt_ids": ids[:, :prompt],
        "prompt_mask": mask[:, :prompt],
        "completion_ids": ids[:, prompt:],
        "completion_mask": mask[:, prompt:],
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": mask[:, prompt:].sum(),
    }


@contextmanager
def log_probabilities_of_trl() -> Iterator[None]:
    """Within it, our trainer computes log-probabilities as TRL's does."""
    name = "_get_per_token_logps_and_entropies"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(R1Trainer, name, getattr(GRPOTrainer, name))
        yield
