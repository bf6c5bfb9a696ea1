"""Attention of a new token that leaves its keys and values where they are, in models whose query heads share them.

With a mask, which left-padded prompts need, transformers 5.x copies keys and values for each of the query heads that
share them, at every token and in every layer. For one new token the heads of a group can be rows of one query instead:
the same products, without the copies.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

REPLACED = "sdpa"


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **others: Any
) -> tuple[Tensor, None]:
    """As transformers' `sdpa`.

    Args:
        query: (sequences, query heads, new tokens, width).
        key, value: (sequences, key heads, tokens, width).
        attention_mask: (sequences, 1, new tokens, tokens), or None.

    Returns:
        (sequences, new tokens, query heads, width), and no weights.
    """
    sequences, heads, new, width = query.shape
    shared = key.shape[1]
    if new != 1 or heads == shared or attention_mask is None or others.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **others)
    groups = query.reshape(sequences, shared, heads // shared, width)
    attended = scaled_dot_product_attention(groups, key, value, attn_mask=attention_mask, scale=others.get("scaling"))
    return attended.reshape(sequences, 1, heads, value.shape[-1]), None


@contextmanager
def grouped_attention() -> Iterator[None]:
    """Within it, models whose attention is transformers' own `sdpa` attend so; also a decorator."""
    theirs = AttentionInterface()[REPLACED]
    AttentionInterface.register(REPLACED, attend if theirs is sdpa_attention_forward else theirs)
    try:
        yield
    finally:
        AttentionInterface.register(REPLACED, theirs)
