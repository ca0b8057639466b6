"""A model's weights as the native step reads them, packed layer by layer out of transformers' modules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from engine.executors.native.architecture import (
    KNOWN,
    Norms,
    Order,
    Sizes,
    attention_linears,
    gate_up_order,
    head_order,
    mlp_linears,
    norms_of,
    reason_against,
    sizes_of,
)
from engine.executors.native.huge_pages import Bytes, HugePages
from engine.executors.native.library import Library, NativeError, load_library
from engine.executors.native.processor import LACKS_INSTRUCTIONS, Instructions, best_instructions
from engine.executors.native.structures import Buffer, PackOrder

#: Columns of a panel; a packed weight has whole panels.
PANEL_COLUMNS = 64

#: Told which stored weight is packed and not needed any more.
Finish = Callable[[torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A packed weight [outputs, inputs]; scales and first sums are those of 8 bits, for each column."""

    inputs: int
    outputs: int
    weights: Bytes
    scales: torch.Tensor | None
    first_sums: torch.Tensor | None
    bias: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer: gate and up share a weight, and so do queries, keys and values."""

    norms: Norms
    query_key_value: PackedLinear
    attended: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear

    @property
    def linears(self) -> tuple[PackedLinear, ...]:
        """Return them in the order in which a step needs them, which is that of `LayerWeights`."""
        return self.query_key_value, self.attended, self.gate_up, self.down


@dataclass(frozen=True, slots=True)
class PackedModel:
    """All that a step needs of a model, packed for the library's instructions."""

    library: Library
    bits: int
    sizes: Sizes
    layers: tuple[PackedLayer, ...]
    embedding: torch.Tensor
    final_norm: torch.Tensor
    head: PackedLinear
    frequencies: np.ndarray[tuple[int], np.dtype[np.float32]]
    angle_scale: float
    attention_scale: float


def pack_model(
    model: PreTrainedModel,
    bits: int,
    finish: Finish = lambda stored: None,
    instructions: Instructions | None = None,
    memory: HugePages | None = None,
) -> PackedModel:
    """Take a model's weights over; its linear layers are left empty.

    Raises NativeError if the step does not know the model, and CannotBuild if there is no step.
    """
    instructions = instructions or best_instructions()
    if instructions is None:
        raise NativeError(f"this processor {LACKS_INSTRUCTIONS}")
    if (reason := reason_against(model)) is not None:
        raise NativeError(f"the native step does not know this model: {reason}")
    if bits not in (16, 8):
        raise NativeError(f"bits: must be 16 or 8, not {bits}")
    return _Packer(model, bits, finish, load_library(instructions), memory or HugePages()).packed()


class _Packer:
    def __init__(
        self, model: PreTrainedModel, bits: int, finish: Finish, library: Library, memory: HugePages
    ) -> None:
        self._model = model
        self._bits = bits
        self._finish = finish
        self._library = library
        self._memory = memory
        self._sizes = sizes_of(model)
        self._decoder = model.get_submodule("model")
        self._rotary = self._decoder.get_submodule("rotary_emb")
        self._frequencies = self._rotary.get_buffer("inv_freq").float().numpy()
        self._is_interleaved = KNOWN[type(model).__name__]

    @torch.no_grad()
    def packed(self) -> PackedModel:
        layers = self._decoder.get_submodule("layers")
        embedding = self._decoder.get_submodule("embed_tokens").get_parameter("weight").detach()
        first_attention = layers.get_submodule("0.self_attn")
        return PackedModel(
            library=self._library,
            bits=self._bits,
            sizes=self._sizes,
            layers=tuple(self._layer(layer) for layer in layers.children()),
            head=self._head(embedding),
            embedding=embedding.to(torch.bfloat16).contiguous(),
            final_norm=self._decoder.get_submodule("norm").get_parameter("weight").detach().float(),
            frequencies=self._frequencies,
            angle_scale=float(self._rotary.attention_scaling),  # type: ignore[arg-type]
            attention_scale=float(first_attention.scaling),  # type: ignore[arg-type]
        )

    def _layer(self, layer: nn.Module) -> PackedLayer:
        return PackedLayer(
            norms=self._arranged(norms_of(layer)),
            query_key_value=self._packed_linear(attention_linears(layer), self._query_key_value_order()),
            attended=self._packed_linear([_linear_at(layer, "self_attn.o_proj")]),
            gate_up=self._packed_linear(mlp_linears(layer), gate_up_order(self._sizes.intermediate)),
            down=self._packed_linear([_linear_at(layer, "mlp.down_proj")]),
        )

    def _head(self, embedding: torch.Tensor) -> PackedLinear:
        """Pack the output layer; a weight that it shares with the embedding stays."""
        head = self._model.get_output_embeddings()  # type: ignore[no-untyped-call]
        is_shared = head.weight.data_ptr() == embedding.data_ptr()
        return self._packed_linear([head], finish=(lambda stored: None) if is_shared else self._finish)

    def _packed_linear(
        self, linears: Sequence[nn.Linear], order: Order | None = None, finish: Finish | None = None
    ) -> PackedLinear:
        """Pack some layers with the same inputs as one, their rows in this order."""
        inputs = linears[0].in_features
        order = (
            np.arange(sum(one.out_features for one in linears), dtype=np.int32) if order is None else order
        )
        padded = np.full(-(-len(order) // PANEL_COLUMNS) * PANEL_COLUMNS, -1, np.int32)
        padded[: len(order)] = order
        packed = self._pack([one.weight for one in linears], padded, inputs)
        for one in linears:
            stored, one.weight = one.weight, nn.Parameter(torch.empty(0), requires_grad=False)
            (finish or self._finish)(stored)
        return PackedLinear(inputs, len(order), *packed, _bias(linears, padded))

    def _pack(
        self, sources: Sequence[torch.Tensor], order: Order, inputs: int
    ) -> tuple[Bytes, torch.Tensor | None, torch.Tensor | None]:
        """Return weights, scales and first sums; in 16 bits there are only weights."""
        packed = self._memory.take(len(order) * inputs * self._bits // 8)
        scales = torch.empty(len(order)) if self._bits == 8 else None
        first_sums = torch.empty(len(order), dtype=torch.int32) if self._bits == 8 else None
        rows = [self._readable(source) for source in sources]
        pack_order = PackOrder(
            (Buffer * 3)(*(Buffer.of(one) for one in rows)),
            Buffer.of(order),
            inputs,
            8 * rows[0].itemsize,
            self._bits,
            *(Buffer.of(one) for one in (packed, scales, first_sums)),
        )
        self._library.pack(pack_order, torch.get_num_threads())
        return packed, scales, first_sums

    def _readable(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight of a type that is packed: bfloat16, or float32 where it is rounded further."""
        is_read = self._bits == 16 or weight.dtype == torch.bfloat16
        return weight.detach().to(torch.bfloat16 if is_read else torch.float32).contiguous()

    def _query_key_value_order(self) -> Order:
        sizes, rotary = self._sizes, 2 * len(self._frequencies)
        queries = head_order(sizes.heads, sizes.head_size, rotary, is_interleaved=self._is_interleaved)
        keys = head_order(sizes.key_heads, sizes.head_size, rotary, is_interleaved=self._is_interleaved)
        values = np.arange(sizes.key_heads * sizes.head_size, dtype=np.int32)
        return np.concatenate([queries, keys + len(queries), values + len(queries) + len(keys)])

    def _arranged(self, norms: Norms) -> Norms:
        """A head's norm is arranged as the head is."""
        order = head_order(
            1, self._sizes.head_size, 2 * len(self._frequencies), is_interleaved=self._is_interleaved
        )
        return norms._replace(
            query_norm=None if norms.query_norm is None else _in_order(norms.query_norm, order),
            key_norm=None if norms.key_norm is None else _in_order(norms.key_norm, order),
        )


def _linear_at(layer: nn.Module, path: str) -> nn.Linear:
    return layer.get_submodule(path)  # type: ignore[return-value]


def _bias(linears: Sequence[nn.Linear], order: Order) -> torch.Tensor | None:
    """Return the biases in this order, float32; None if no layer has one."""
    if all(one.bias is None for one in linears):
        return None
    parts = [torch.zeros(one.out_features) if one.bias is None else one.bias.float() for one in linears]
    return _in_order(torch.cat(parts), order)


def _in_order(numbers: torch.Tensor, order: Order) -> torch.Tensor:
    """Return the numbers in this order, 0 where there is no row."""
    places = torch.from_numpy(order).long()
    return torch.where(places >= 0, numbers[places.clamp_min(0)], 0).to(numbers.dtype).contiguous()
