"""A reward that differs between completions of any model, for tests that need an update of the weights."""

from collections.abc import Sequence
from typing import Any


def share_of_e(completions: Sequence[str], **kwargs: Any) -> list[float]:
    """The share of the letter e in each completion."""
    return [completion.count("e") / max(1, len(completion)) for completion in completions]
