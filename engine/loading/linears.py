"""The form that each linear layer of a model takes in memory: as it is stored, laid out anew, 8 or 4 bit."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from engine.executors.prepacked import can_prepack
from engine.executors.quantized import compressed_bytes

#: The layer that gives the logits keeps at least so many bits: an error there falls on the choice itself.
OUTPUT_BITS = 8

#: Layers with fewer outputs stay as they are: gates and routers, small, and much hangs on what they say.
LEAST_OUTPUTS = 64


class Place(NamedTuple):
    """A linear layer in a model: its path there, the module that holds it, what that calls it.

    `is_output` says that it gives the logits.
    """

    path: str
    parent: nn.Module
    attribute: str
    linear: nn.Linear
    is_output: bool


class LinearForms:
    """Which form linear layers take where weights have `bits` and everything else `dtype`."""

    def __init__(self, bits: int, dtype: torch.dtype, *, is_cuda: bool) -> None:
        self._bits = bits
        self._is_cuda = is_cuda
        self._prepacks = not is_cuda and dtype == torch.bfloat16 and can_prepack()

    def bits_of(self, place: Place) -> int | None:
        """Return the bits of its weight in the layer that takes its place; None if it stays."""
        if self._bits < 16 and place.linear.out_features >= LEAST_OUTPUTS:
            return max(self._bits, OUTPUT_BITS) if place.is_output else self._bits
        return 16 if self._prepacks else None

    def bytes_of(self, place: Place) -> int | None:
        """Return what the weight of the layer that takes its place needs; None if it stays."""
        bits, linear = self.bits_of(place), place.linear
        if bits is None:
            return None
        return compressed_bytes(linear.in_features, linear.out_features, bits, is_cuda=self._is_cuda)


def linear_layers(model: PreTrainedModel) -> Iterator[Place]:
    """Yield every plain linear layer, in the order of the model.

    Those that were yielded are not kept: whoever replaces them gets their memory back at once.
    """
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    parents = [(path, module) for path, module in model.named_modules() if type(module) is not nn.Linear]
    for path, parent in parents:
        for attribute in [name for name, _ in parent.named_children()]:
            child = getattr(parent, attribute)
            if type(child) is nn.Linear:
                name = f"{path}.{attribute}".lstrip(".")
                yield Place(name, parent, attribute, child, child is output)
