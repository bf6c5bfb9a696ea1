"""Keys and values that stay where they are when a token is added, while those of transformers are copied each time.

Copies take most of the time that a small model with long completions needs on a CPU: each token would read, and write
again, what all the tokens before it have left in every layer.
"""

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens that memory is taken for in advance, beyond those that are there


class RoomyLayer(DynamicLayer):
    """A layer whose keys and values are the front of memory that has room for more."""

    memory: tuple[Tensor, Tensor] | None = None
    keys: Tensor  # typed as optional by transformers
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add those of new tokens; all of them, each of (sequences, key heads, tokens, width)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        now = before + key_states.shape[2]
        if self.memory is None or now > self.memory[0].shape[2]:
            self.memory = _room(self.keys, key_states, now + ROOM), _room(self.values, value_states, now + ROOM)
        for memory, new in zip(self.memory, (key_states, value_states), strict=True):
            memory[:, :, before:now] = new
        self.keys, self.values = (memory[:, :, :now] for memory in self.memory)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences only, and let go of the memory of the others."""
        super().batch_select_indices(indices)
        self.memory = None


def _room(old: Tensor, new: Tensor, tokens: int) -> Tensor:
    """Memory for so many tokens, of sequences like the new ones', with the old ones in front."""
    memory = new.new_empty(*new.shape[:2], tokens, new.shape[3])
    if old.numel():
        memory[:, :, : old.shape[2]] = old
    return memory


def give_room(cache: Cache) -> None:
    """Have an empty cache keep its tokens so, in the layers that keep all of them; others, such as sliding, stay."""
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = RoomyLayer
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
