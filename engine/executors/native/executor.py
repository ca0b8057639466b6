"""The native step as an executor of the engine: its cache, and a batch's rows as arrays."""

from collections.abc import Sequence as Items
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import Batch, Span
from engine.executors.native.library import OpenModel
from engine.executors.native.structures import (
    Buffer,
    LayerWeights,
    LinearWeights,
    ModelWeights,
    Shape,
    StepRows,
)
from engine.executors.native.weights import PackedLayer, PackedLinear, PackedModel

#: Tokens of a block, as the step's layout of keys and values has it.
BLOCK_TOKENS = 16

#: Rows that a step computes in about the time of one: they share a tile, see sources/tiles.h.
CHEAP_ROWS = 4

#: Bytes of a key's or value's number: bfloat16.
CACHED_BYTES = 2

Int32 = npt.NDArray[np.int32]


class NativeExecutor:
    """A packed model and its key/value cache.

    The cache takes `memory_bytes`, or less where `most_tokens` can be held in less. Raises ValueError
    if not even one block fits, and NativeError if something about the weights is not as it must be.
    """

    block_tokens = BLOCK_TOKENS
    cheap_rows = CHEAP_ROWS

    def __init__(self, model: PackedModel, memory_bytes: int, most_tokens: int) -> None:
        sizes = model.sizes
        self._model = model
        self.bytes_per_token = 2 * sizes.layers * sizes.key_heads * sizes.head_size * CACHED_BYTES
        self.cache_blocks = min(
            memory_bytes // (self.bytes_per_token * BLOCK_TOKENS), -(-most_tokens // BLOCK_TOKENS)
        )
        if self.cache_blocks < 1:
            raise ValueError(f"{memory_bytes} bytes hold no cache block of {BLOCK_TOKENS} tokens")
        numbers = self.cache_blocks * BLOCK_TOKENS * self.bytes_per_token // (2 * CACHED_BYTES)
        # Zeros of numpy take memory only once they are written to.
        self._keys, self._values = (np.zeros(numbers, np.uint16) for _ in range(2))
        self._open = self._opened()

    def run(self, batch: Batch) -> torch.Tensor:
        """Compute the rows; see `Executor.run`. Raises NativeError if the batch contradicts itself."""
        positions = np.array(batch.positions, np.float32)
        angles = positions[:, None] * self._model.frequencies
        logits = np.empty((len(batch.logit_rows), self._model.sizes.vocabulary), np.float32)
        spans, blocks = _spans_and_blocks(batch.spans)
        arrays = (
            _int32(batch.tokens),
            _int32(batch.positions),
            _int32(batch.slots),
            np.cos(angles) * np.float32(self._model.angle_scale),
            np.sin(angles) * np.float32(self._model.angle_scale),
            spans,
            blocks,
            _int32(batch.logit_rows),
            logits,
        )
        self._open.step(StepRows(*(Buffer.of(one) for one in arrays)))
        return torch.from_numpy(logits)

    def _opened(self) -> OpenModel:
        model = self._model
        layers = (LayerWeights * len(model.layers))(*(_layer_weights(layer) for layer in model.layers))
        weights = ModelWeights(
            self._shape(),
            layers,
            len(model.layers),
            Buffer.of(model.embedding),
            Buffer.of(model.final_norm),
            _linear_weights(model.head),
            Buffer.of(self._keys),
            Buffer.of(self._values),
        )
        return model.library.open(weights)

    def _shape(self) -> Shape:
        model, sizes = self._model, self._model.sizes
        return Shape(
            bits=model.bits,
            rotary_size=2 * len(model.frequencies),
            cache_blocks=self.cache_blocks,
            threads=torch.get_num_threads(),
            attention_scale=model.attention_scale,
            **sizes._asdict(),
        )


def _layer_weights(layer: PackedLayer) -> LayerWeights:
    return LayerWeights(
        *(Buffer.of(norm) for norm in layer.norms), *(_linear_weights(linear) for linear in layer.linears)
    )


def _linear_weights(linear: PackedLinear) -> LinearWeights:
    return LinearWeights(
        Buffer.of(linear.weights),
        Buffer.of(linear.scales),
        Buffer.of(linear.first_sums),
        Buffer.of(linear.bias),
        linear.inputs,
        linear.outputs,
    )


def _int32(numbers: Items[int]) -> Int32:
    """Raises OverflowError for what no 32 bits can hold."""
    return np.array(numbers, np.int32)


def _spans_and_blocks(spans: Items[Span]) -> tuple[Int32, Int32]:
    """Return [spans, 4] and the blocks that they see, one span's behind another's; see sources/api.h."""
    seen = [span.blocks[: -(-span.context_tokens // BLOCK_TOKENS)] for span in spans]
    place, rows = 0, []
    for span, blocks in zip(spans, seen, strict=True):
        rows.append((span.first_row, span.rows, span.context_tokens, place))
        place += len(blocks)
    return np.array(rows, np.int32).reshape(-1, 4), np.fromiter(chain.from_iterable(seen), np.int32, place)
