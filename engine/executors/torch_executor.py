"""Any Hugging Face decoder as it is, its attention replaced by one that reads Lectern's block cache.

transformers hands every layer's attention to a function registered by name, and passes unknown
keyword arguments of `model(...)` through to it (`AttentionInterface`, transformers' documentation
"Attention backends"). So all sequences of a step are laid behind each other in one row of tokens,
everything but attention sees a single text, and `_attend` takes them apart again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from engine.batch import Batch, Span
from engine.cache import BLOCK_TOKENS

#: The name under which transformers knows our attention.
ATTENTION = "lectern_blocks"

#: Arguments of attention that change its result and that this executor does not compute.
UNSUPPORTED = ("softcap", "s_aux", "sliding_window")

#: The kind of layer whose memory is keys and values alone; others (recurrent, chunked) would lose theirs.
SUPPORTED_LAYER = "full_attention"

#: Rotary embeddings that change with the longest text of a batch, so that neighbours would change answers.
UNSUPPORTED_ROTARY = ("dynamic", "longrope")


class UnsupportedModel(Exception):
    """The architecture asks for something that this executor cannot compute."""


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer, [slots, key/value heads, head size], on the layer's device."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class SpanGroup:
    """Spans with the same number of rows and similar context, attended to in one call.

    `rows` [spans, rows] are places in the batch, `slots` [spans, context] the cache slots of each
    span's context (padded with slot 0), `mask` [spans, 1, rows, context] says who sees what.
    """

    rows: torch.Tensor
    slots: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> "SpanGroup":
        return SpanGroup(self.rows.to(device), self.slots.to(device), self.mask.to(device))


@dataclass(slots=True)
class StepAttention:
    """What `_attend` needs of the present step; tensors are copied once to each device that asks."""

    slots: torch.Tensor
    groups: list[SpanGroup]
    caches: dict[int, LayerCache]
    _on_device: dict[torch.device, tuple[torch.Tensor, list[SpanGroup]]] = field(default_factory=dict)

    def on(self, device: torch.device) -> tuple[torch.Tensor, list[SpanGroup]]:
        if device not in self._on_device:
            groups = [group.to(device) for group in self.groups]
            self._on_device[device] = (self.slots.to(device), groups)
        return self._on_device[device]


class TorchExecutor:
    """A transformers model and the key/value cache of its layers.

    The cache takes `memory_bytes`, or less where `most_tokens` can be held in less. Raises
    UnsupportedModel if the model's attention is of a kind that is not known here, and ValueError if
    not even one block fits.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        memory_bytes: int,
        most_tokens: int,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        self.block_tokens = block_tokens
        self._model = model
        self._model.set_attn_implementation(ATTENTION)
        self._caches: dict[int, LayerCache] = {}
        self.bytes_per_token = self._probe()
        affordable = memory_bytes // (self.bytes_per_token * block_tokens)
        self.cache_blocks = min(affordable, -(-most_tokens // block_tokens))
        if self.cache_blocks < 1:
            raise ValueError(f"{memory_bytes} bytes hold no cache block of {block_tokens} tokens")
        self._allocate(self.cache_blocks * block_tokens)

    @torch.inference_mode()
    def run(self, batch: Batch) -> torch.Tensor:
        """Compute the rows; see `Executor.run`."""
        device = self._model.device
        step = StepAttention(
            torch.tensor(batch.slots), group_spans(batch.spans, self.block_tokens), self._caches
        )
        output = self._model(
            input_ids=torch.tensor([batch.tokens], device=device),
            position_ids=torch.tensor([batch.positions], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(batch.logit_rows, dtype=torch.long, device=device),
            step_attention=step,
        )
        logits: torch.Tensor = output.logits[0]
        return logits.float().cpu()

    def _probe(self) -> int:
        """Run one token through every layer to learn the shapes of its cache; return bytes per token."""
        self.run(Batch([0], [0], [0], [Span(0, 1, 1, (0,))], [0]))
        if not self._caches:
            raise UnsupportedModel(
                f"{type(self._model).__name__} does not use transformers' attention interface"
            )
        self._check_layers()
        return sum(2 * cache.keys[0].numel() * cache.keys.element_size() for cache in self._caches.values())

    def _check_layers(self) -> None:
        config = self._model.config
        name = type(self._model).__name__
        strangers = set(getattr(config, "layer_types", None) or ()) - {SUPPORTED_LAYER}
        if strangers or len(self._caches) != config.num_hidden_layers:
            kinds = ", ".join(sorted(strangers)) or "not attention"
            raise UnsupportedModel(f"{name} has layers of a kind that is not supported yet: {kinds}")
        rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
        if rotary in UNSUPPORTED_ROTARY:
            raise UnsupportedModel(f"{name} uses {rotary} rotary embeddings, which are not supported yet")

    def _allocate(self, slots: int) -> None:
        for cache in self._caches.values():
            cache.keys = _zeros(slots, cache.keys)
            cache.values = _zeros(slots, cache.values)


def _zeros(slots: int, example: torch.Tensor) -> torch.Tensor:
    """Return a cache tensor; on the CPU its pages are taken from the system only once they are used."""
    shape = (slots, *example.shape[1:])
    if example.device.type != "cpu":
        return example.new_zeros(shape)
    storage = np.zeros(math.prod(shape) * example.element_size(), dtype=np.uint8)
    return torch.from_numpy(storage).view(example.dtype).view(shape)


def group_spans(spans: Sequence[Span], block_tokens: int) -> list[SpanGroup]:
    """Put spans together that share an attention call with little padding: same rows, context within 2x."""
    together: dict[tuple[int, int], list[Span]] = {}
    for span in spans:
        together.setdefault((span.rows, span.context_tokens.bit_length()), []).append(span)
    return [_group(members, block_tokens) for members in together.values()]


def _group(spans: Sequence[Span], block_tokens: int) -> SpanGroup:
    rows = spans[0].rows
    most_blocks = max(len(span.blocks) for span in spans)
    blocks = torch.tensor([span.blocks + (0,) * (most_blocks - len(span.blocks)) for span in spans])
    width = max(span.context_tokens for span in spans)
    slots = (blocks[:, :, None] * block_tokens + torch.arange(block_tokens)).flatten(1)[:, :width]
    first_rows = torch.tensor([span.first_row for span in spans])
    lengths = torch.tensor([span.context_tokens for span in spans])
    last_seen = lengths[:, None] - rows + torch.arange(rows)
    mask = torch.arange(width) <= last_seen[:, :, None]
    return SpanGroup(first_rows[:, None] + torch.arange(rows), slots, mask[:, None])


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    step_attention: StepAttention,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer over the cache; query [1, heads, rows, size] → output [1, rows, heads, size]."""
    for name in UNSUPPORTED:
        if options.get(name) is not None:
            raise UnsupportedModel(f"{type(module).__name__} uses {name}, which is not supported yet")
    cache = _write(module, key, value, step_attention)
    _, groups = step_attention.on(query.device)
    output = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
    for group in groups:
        keys, values = cache.keys[group.slots], cache.values[group.slots]
        attended = scaled_dot_product_attention(
            query[0].transpose(0, 1)[group.rows].transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=group.mask,
            scale=scaling,
            enable_gqa=keys.shape[2] != query.shape[1],
        )
        output[group.rows] = attended.transpose(1, 2)
    return output[None], None


def _write(
    module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor, step: StepAttention
) -> LayerCache:
    """Store the rows' keys and values, [1, heads, rows, size]; the first call of a layer makes its cache."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    slots, _ = step.on(key.device)
    if layer not in step.caches:
        step.caches[layer] = LayerCache(torch.zeros_like(keys[:1]), torch.zeros_like(values[:1]))
    cache = step.caches[layer]
    cache.keys.index_copy_(0, slots, keys)
    cache.values.index_copy_(0, slots, values)
    return cache


AttentionInterface.register(ATTENTION, _attend)
