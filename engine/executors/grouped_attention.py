"""Attention over the block cache in plain torch: the spans of a step, a few calls for all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.batch import Batch, Span
from engine.executors.layer_cache import LayerCache

#: Rows of a span that one call takes: what none of them can see yet is left out instead of masked.
TILE_ROWS = 128

#: Tokens that a short context is filled up to, so that one call serves all short spans.
LEAST_WIDTH = 64

#: Widths between a power of two and the next: filling is at most an eighth of a long context.
WIDTHS_PER_OCTAVE = 8

#: Bytes of keys and values that a call gathers for each thread, so that they are still in its core's
#: own cache when they are read.
GATHERED_BYTES = 1 << 20

#: Rows times query heads per key head, up to which these heads are computed as rows of one head: each
#: key is then read once for all of them. With more rows it makes no difference but for a longer mask.
MOST_FOLDED_ROWS = 128


class LayerForm(NamedTuple):
    """What the calls of a layer depend on, besides the step; most models have one form for all layers."""

    device: torch.device
    dtype: torch.dtype
    heads_per_key: int


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """Tiles of equal rows and width: they lie in the batch at `rows` [tiles x rows], their contexts in
    the cache at `slots` [tiles x width]; `mask` [tiles, 1, rows, width] is 0 or minus infinity.

    Where `is_folded`, the query heads of a key head are rows of one head, and the mask is as long.
    """

    rows: torch.Tensor
    slots: torch.Tensor
    mask: torch.Tensor
    is_folded: bool

    def attend(self, query: torch.Tensor, cache: LayerCache, scaling: float | None) -> torch.Tensor:
        """[rows of the batch, heads, size] → [tiles x rows, heads, size]."""
        tiles, heads, key_heads = len(self.mask), query.shape[1], cache.keys.shape[1]
        chosen = query.index_select(0, self.rows)
        chosen = chosen.view(tiles, -1, key_heads, heads // key_heads, query.shape[2]).permute(0, 2, 3, 1, 4)
        attended = scaled_dot_product_attention(
            chosen.flatten(2, 3) if self.is_folded else chosen.flatten(1, 2),
            self._gather(cache.keys),
            self._gather(cache.values),
            attn_mask=self.mask,
            scale=scaling,
            enable_gqa=not self.is_folded and heads != key_heads,
        )
        attended = attended.reshape(*chosen.shape[:4], -1).permute(0, 3, 1, 2, 4)
        return attended.reshape(len(self.rows), heads, -1)

    def _gather(self, part: torch.Tensor) -> torch.Tensor:
        """[slots, heads, size] → [tiles, heads, width, size]."""
        gathered = part.flatten(1).index_select(0, self.slots)
        return gathered.view(len(self.mask), -1, *part.shape[1:]).transpose(1, 2)


class GroupedAttention:
    """The attention of one step; its tensors are made once for each form of layer.

    What a row gets does not depend, to the last bit, on the other spans: the shape of its computation
    follows from its own span alone.
    """

    def __init__(self, batch: Batch, block_tokens: int) -> None:
        self._slots = torch.tensor(batch.slots)
        self._slots_on: dict[torch.device, torch.Tensor] = {}
        self._groups = group_tiles(batch.spans)
        self._block_tokens = block_tokens
        self._calls: dict[LayerForm, list[AttentionCall]] = {}

    def slots_on(self, device: torch.device) -> torch.Tensor:
        if device not in self._slots_on:
            self._slots_on[device] = self._slots.to(device)
        return self._slots_on[device]

    def attend(self, query: torch.Tensor, cache: LayerCache, scaling: float | None) -> torch.Tensor:
        """[rows, heads, size] → [rows, heads, size], over keys and values that the cache holds."""
        form = LayerForm(query.device, query.dtype, query.shape[1] // cache.keys.shape[1])
        if form not in self._calls:
            self._calls[form] = list(self._make_calls(form, cache))
        output = query.new_empty(*query.shape[:2], cache.values.shape[-1])
        for call in self._calls[form]:
            output.index_copy_(0, call.rows, call.attend(query, cache, scaling))
        return output

    def _make_calls(self, form: LayerForm, cache: LayerCache) -> Iterator[AttentionCall]:
        tokens_per_call = torch.get_num_threads() * GATHERED_BYTES // cache.bytes_per_token
        for (_, width), tiles in self._groups.items():
            most = max(1, tokens_per_call // width)
            for start in range(0, len(tiles), most):
                portion = tiles[start : start + most]
                slots = context_slots(portion, width, self._block_tokens, cache.empty_slot)
                yield make_call(portion, slots, form)


def group_tiles(spans: Sequence[Span]) -> dict[tuple[int, int], list[Span]]:
    """Cut the spans into tiles of at most TILE_ROWS rows; return those of the same (rows, width) together."""
    groups: dict[tuple[int, int], list[Span]] = {}
    for span in spans:
        behind = span.context_tokens - span.rows
        for start in range(0, span.rows, TILE_ROWS):
            end = min(start + TILE_ROWS, span.rows)
            tile = Span(span.first_row + start, end - start, behind + end, span.blocks)
            groups.setdefault((tile.rows, width_for(tile.context_tokens)), []).append(tile)
    return groups


def width_for(context_tokens: int) -> int:
    """Round up to one of the few widths of calls."""
    octave = 1 << context_tokens.bit_length() - 1
    step = max(LEAST_WIDTH, octave // WIDTHS_PER_OCTAVE)
    return -(-context_tokens // step) * step


def context_slots(tiles: Sequence[Span], width: int, block_tokens: int, empty_slot: int) -> torch.Tensor:
    """Return the slots of each tile's context, [tiles x width], the empty one behind it."""
    within = np.arange(block_tokens)
    slots = np.full((len(tiles), width), empty_slot)
    for tile, own in zip(tiles, slots, strict=True):
        blocks = np.array(tile.blocks[: -(-tile.context_tokens // block_tokens)])
        own[: tile.context_tokens] = (blocks[:, None] * block_tokens + within).ravel()[: tile.context_tokens]
    return torch.from_numpy(slots.ravel())


def make_call(tiles: Sequence[Span], slots: torch.Tensor, form: LayerForm) -> AttentionCall:
    """Lay out tiles of the same number of rows and the same width."""
    rows = torch.arange(tiles[0].rows)
    first_rows = torch.tensor([tile.first_row for tile in tiles])
    behind = torch.tensor([tile.context_tokens - tile.rows for tile in tiles])
    last_seen = behind[:, None] + rows
    hidden = torch.arange(len(slots) // len(tiles)) > last_seen[:, :, None]
    is_folded = len(rows) * form.heads_per_key <= MOST_FOLDED_ROWS
    if is_folded:
        hidden = hidden.repeat(1, form.heads_per_key, 1)
    mask = torch.zeros(hidden.shape, dtype=form.dtype).masked_fill_(hidden, -torch.inf)
    return AttentionCall(
        rows=(first_rows[:, None] + rows).flatten().to(form.device),
        slots=slots.to(form.device),
        mask=mask[:, None].to(form.device),
        is_folded=is_folded,
    )
