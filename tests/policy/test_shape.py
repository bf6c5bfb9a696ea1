"""What a configuration says of a model: whether its layers keep keys and values of all tokens."""

from typing import Any

import pytest
from transformers import AutoConfig

from mini_r1.policy.shape import keeps_every_token

KINDS = [
    ("llama", {}, True),
    ("qwen2", {}, True),
    ("qwen3", {}, True),
    ("mistral", {"sliding_window": None}, True),
    ("mistral", {"sliding_window": 4096}, False),
    ("gemma3_text", {}, False),
    ("qwen3_next", {}, False),
    ("mamba2", {}, False),
]


@pytest.mark.parametrize(("kind", "more", "expected"), KINDS)
def test_layers_that_let_go_of_tokens_are_told_apart(kind: str, more: dict[str, Any], expected: bool) -> None:
    assert keeps_every_token(AutoConfig.for_model(kind, **more)) is expected
