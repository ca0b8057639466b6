"""The key/value cache of one layer, and what computes attention over it in a step."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer, [slots, key/value heads, head size], on the layer's device.

    The last block is never written: its zeros stand for what lies behind a context.
    """

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def empty_slot(self) -> int:
        """A slot that holds zeros."""
        return len(self.keys) - 1

    @property
    def bytes_per_token(self) -> int:
        return sum(part[0].numel() * part.element_size() for part in (self.keys, self.values))

    def resize(self, slots: int) -> None:
        """Take so many slots, the last block's included; what was there is lost."""
        self.keys, self.values = _zeros(slots, self.keys), _zeros(slots, self.values)

    def write(self, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store the rows' keys and values, [rows, heads, size]."""
        self.keys.index_copy_(0, slots, keys)
        self.values.index_copy_(0, slots, values)


class StepAttention(Protocol):
    """The attention of one step: which slots the rows take, and what each of them sees."""

    def slots_on(self, device: torch.device) -> torch.Tensor:
        """The cache slot of each row, [rows]."""
        ...

    def attend(self, query: torch.Tensor, cache: LayerCache, scaling: float | None) -> torch.Tensor:
        """[rows, heads, size] → [rows, heads, size], over keys and values that the cache holds."""
        ...


def _zeros(slots: int, example: torch.Tensor) -> torch.Tensor:
    """Return a cache tensor; on the CPU its pages are taken from the system only once they are used."""
    shape = (slots, *example.shape[1:])
    if example.device.type != "cpu":
        return example.new_zeros(shape)
    storage = np.zeros(math.prod(shape) * example.element_size(), dtype=np.uint8)
    return torch.from_numpy(storage).view(example.dtype).view(shape)
