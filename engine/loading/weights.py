"""Brings a mapped model to where it runs, weight by weight: never more than one is there twice."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from engine.executors.quantized import compressed_linear
from engine.loading.heap import trim_heap
from engine.loading.linears import LinearForms, linear_layers
from engine.loading.mapped_files import MappedFiles
from engine.loading.progress import Progress

#: Bytes of weights after which the heap is trimmed: at most so much is there twice for a while.
TRIM_BYTES = 4 << 20

#: Tells the device of a module by its path, such as model.layers.3.mlp.
DeviceOf = Callable[[str], torch.device]


class _Holder(NamedTuple):
    """A module that holds a weight, its path, and what it calls the weight."""

    path: str
    module: nn.Module
    name: str


class WeightMover:
    """Gives the weights of one model their devices, their type, and linear layers their form.

    What is copied leaves no page of its file behind. What need not be copied stays mapped: its pages
    come with their use (an embedding is read a few rows at a time) and go when memory is short.
    """

    def __init__(
        self, model: PreTrainedModel, forms: LinearForms, dtype: torch.dtype, mapped: MappedFiles
    ) -> None:
        self._model = model
        self._forms = forms
        self._dtype = dtype
        self._mapped = mapped
        self._exact_names = tuple(model._keep_in_fp32_modules_strict or ())
        self._untrimmed_bytes = 0
        self._progress = Progress(sum(weight.nbytes for weight in model.parameters()))

    @torch.no_grad()
    def move(self, device_of: DeviceOf) -> None:
        """Move everything; modules that share a weight go on sharing it unless they take another form."""
        settled = self._replace_linears(device_of)
        holders: dict[int, list[_Holder]] = {}
        for path, module in self._model.named_modules():
            if id(module) in settled:
                continue
            for name, weight in module.named_parameters(recurse=False):
                holders.setdefault(id(weight), []).append(_Holder(path, module, name))
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, buffer.to(device_of(path)))
        for sharing in holders.values():
            self._move_weight(sharing, device_of(sharing[0].path))
        self._model.config.dtype = self._dtype

    def _replace_linears(self, device_of: DeviceOf) -> set[int]:
        """Replace the linear layers that take another form; return the ids of the new modules."""
        settled: set[int] = set()
        for place in linear_layers(self._model):
            linear = place.linear
            bits = self._forms.bits_of(place)
            if bits is None:
                continue
            stored = linear.weight
            for name, weight in list(linear.named_parameters()):
                brought = weight.to(device_of(place.path), self._dtype)
                setattr(linear, name, nn.Parameter(brought, requires_grad=False))
            new = compressed_linear(linear, bits)
            setattr(place.parent, place.attribute, new)
            settled.update(id(module) for module in new.modules())
            self._finish(stored)
        return settled

    def _move_weight(self, sharing: list[_Holder], device: torch.device) -> None:
        path, module, name = sharing[0]
        stored: nn.Parameter = getattr(module, name)
        is_exact = any(word in f"{path}.{name}" for word in self._exact_names)
        dtype = stored.dtype if is_exact or not stored.is_floating_point() else self._dtype
        moved = stored.to(device, dtype)
        if moved is stored:
            self._progress.add(stored.nbytes)
            return
        for _, holding, called in sharing:
            setattr(holding, called, nn.Parameter(moved, requires_grad=False))
        self._finish(stored)

    def _finish(self, stored: torch.Tensor) -> None:
        self._mapped.give_back(stored)
        self._progress.add(stored.nbytes)
        self._untrimmed_bytes += stored.nbytes
        if self._untrimmed_bytes >= TRIM_BYTES:
            self._untrimmed_bytes = 0
            trim_heap()
