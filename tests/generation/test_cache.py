"""Keys and values that stay in their place: the same as transformers' own, which moves them at every token."""

import torch
from transformers import DynamicCache, Gemma3TextConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from mini_r1.generation.cache import ROOM, RoomyLayer, give_room

SEQUENCES, HEADS, WIDTH = 4, 2, 3


def new_states(sequences: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(sequences, HEADS, tokens, WIDTH), torch.randn(sequences, HEADS, tokens, WIDTH)


def test_it_holds_what_a_layer_of_transformers_holds() -> None:
    """Over a prompt, tokens beyond the first room and beyond the second, and sequences that leave in between."""
    torch.manual_seed(0)
    ours, theirs = RoomyLayer(), DynamicLayer()
    sequences = SEQUENCES
    for tokens in [7] + [1] * (2 * ROOM + 5):
        states = new_states(sequences, tokens)
        for mine, other in zip(ours.update(*states), theirs.update(*states), strict=True):
            assert torch.equal(mine, other)
        assert ours.get_seq_length() == theirs.get_seq_length()
        if theirs.get_seq_length() in (20, 21, 90):
            sequences -= 1
            left = torch.arange(sequences).flip(0)
            ours.batch_select_indices(left)
            theirs.batch_select_indices(left)


def test_keys_and_values_move_once_for_many_tokens() -> None:
    ours, theirs = RoomyLayer(), DynamicLayer()
    places: dict[DynamicLayer, list[int]] = {ours: [], theirs: []}  # of the keys
    kept = []  # so that no memory is used again, which would have the same place
    for _ in range(2 * ROOM):
        states = new_states(SEQUENCES, 1)
        for layer, seen in places.items():
            kept.append(layer.update(*states))
            seen.append(kept[-1][0].data_ptr())
    assert len(set(places[ours])) == 2
    assert len(set(places[theirs])) == 2 * ROOM


def test_the_memory_of_sequences_that_leave_is_let_go() -> None:
    layer = RoomyLayer()
    layer.update(*new_states(SEQUENCES, 5))
    layer.batch_select_indices(torch.tensor([1]))
    assert layer.keys.untyped_storage().nbytes() == HEADS * 5 * WIDTH * 4
    assert layer.memory is None


def test_layers_that_forget_stay_as_they_are() -> None:
    config = Gemma3TextConfig(num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2)
    caches = DynamicCache(config=config), DynamicCache()
    for cache in caches:
        give_room(cache)
    assert [type(layer) for layer in caches[0].layers] == [DynamicSlidingWindowLayer, RoomyLayer] * 2
    caches[1].update(*new_states(SEQUENCES, 5), 0)
    assert [type(layer) for layer in caches[1].layers] == [RoomyLayer]
