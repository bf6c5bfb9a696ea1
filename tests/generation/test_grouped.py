"""Attention of a new token without copies of keys and values: the results are those of transformers' `sdpa`."""

from typing import Any

import pytest
import torch
from transformers import AttentionInterface, Qwen2Config, Qwen2ForCausalLM
from transformers.integrations import sdpa_attention

from mini_r1.generation import grouped
from mini_r1.generation.decoding import decode_without_ended
from mini_r1.generation.grouped import REPLACED, attend, grouped_attention

PROMPTS = torch.tensor([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5], [0, 4, 4, 3, 2]])
MASK = (PROMPTS != 0).long()  # two of them are padded on the left


def sharing(query_heads: int = 6, key_heads: int = 2) -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=query_heads,
        num_key_value_heads=key_heads,
        pad_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,  # so that attention matters
    )
    return Qwen2ForCausalLM(config).eval()


@torch.no_grad()
def scores_of_a_new_token(model: Any) -> torch.Tensor:
    cache = model(input_ids=PROMPTS, attention_mask=MASK, use_cache=True).past_key_values
    mask = torch.cat([MASK, torch.ones(3, 1, dtype=torch.long)], dim=1)
    new, places = torch.full((3, 1), 11), mask.sum(1, keepdim=True) - 1
    scores: torch.Tensor = model(input_ids=new, attention_mask=mask, position_ids=places, past_key_values=cache).logits
    return scores


@pytest.mark.parametrize(("query_heads", "key_heads"), [(6, 2), (6, 1), (4, 4)])
def test_the_scores_are_the_same(query_heads: int, key_heads: int) -> None:
    model = sharing(query_heads, key_heads)
    theirs = scores_of_a_new_token(model)
    with grouped_attention():
        ours = scores_of_a_new_token(model)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert theirs.std() > 1


def test_nothing_is_copied_for_a_new_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for the prompt, keys and values in three layers; transformers' own loop copies all, token by token."""
    copied: list[int] = []
    theirs = sdpa_attention.repeat_kv

    def counted(states: torch.Tensor, times: int) -> torch.Tensor:
        copied.append(states.shape[2])
        return theirs(states, times)

    monkeypatch.setattr(sdpa_attention, "repeat_kv", counted)
    settings = {"attention_mask": MASK, "do_sample": False, "min_new_tokens": 4, "max_new_tokens": 4}
    model = sharing()
    ours = model.generate(PROMPTS, **settings, custom_generate=decode_without_ended)
    assert copied == [5] * 6
    assert torch.equal(ours, model.generate(PROMPTS, **settings))
    assert copied[6:] == [5] * 6 + [6] * 6 + [7] * 6 + [8] * 6


def test_what_was_registered_is_there_again() -> None:
    theirs = AttentionInterface()[REPLACED]
    with pytest.raises(ZeroDivisionError), grouped_attention():
        assert AttentionInterface()[REPLACED] is attend
        raise ZeroDivisionError
    assert AttentionInterface()[REPLACED] is theirs is grouped.sdpa_attention_forward


def test_what_somebody_else_has_registered_is_left_alone() -> None:
    def another(*_: Any) -> Any: ...

    theirs = AttentionInterface()[REPLACED]
    AttentionInterface.register(REPLACED, another)
    try:
        with grouped_attention():
            assert AttentionInterface()[REPLACED] is another
        assert AttentionInterface()[REPLACED] is another
    finally:
        AttentionInterface.register(REPLACED, theirs)
