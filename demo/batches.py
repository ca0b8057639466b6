"""Rows as tensors: ids, positions, the block mask, and what is to be learned at each place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.packing import Row

#: A label that no loss looks at.
IGNORED = -100
#: Added to a score that must not count; finite, so that a padded row stays finite.
_HIDDEN = -1e9


@dataclass(frozen=True)
class Batch:
    """All tensors are [rows, length]; `mask` is [rows, 1, length, length] and is added to attention scores.

    `targets` is the next token where one is learned. `topics` and `ordinals` are labels of auxiliary heads
    at the end of a title or a wish: its topic, and how many titles on that topic stand before.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    targets: Tensor
    weights: Tensor
    decisions: Tensor
    topics: Tensor
    ordinals: Tensor
    starts: Tensor
    ends: Tensor
    behinds: Tensor
    copies: Tensor


def collate(rows: Sequence[Row], length: int) -> Batch:
    """Lay rows out side by side, each padded to `length`; raises ValueError when one is longer."""
    for row in rows:
        if len(row) > length:
            raise ValueError(f"row of {len(row)} tokens does not fit the length {length}")
    columns = [_lay_out(row, length) for row in rows]
    names = columns[0].keys()
    tensors = {name: torch.tensor([column[name] for column in columns]) for name in names}
    blocks = tensors.pop("blocks")
    return Batch(mask=_block_mask(blocks), **tensors)


def _lay_out(row: Row, length: int) -> dict[str, list[int] | list[float] | list[bool]]:
    size = len(row.prefix)
    ids, positions, blocks = list(row.prefix), list(range(size)), [0] * size
    targets, weights, decisions = [IGNORED] * length, [0.0] * length, [False] * length
    topics, ordinals = [IGNORED] * length, [IGNORED] * length
    starts, ends, behinds, copies = ([IGNORED] * length for _ in range(4))
    for line in row.lines:
        topics[line.position], ordinals[line.position] = line.topic, line.ordinal
        starts[line.position], behinds[line.position] = line.start, line.behind
    for number, branch in enumerate(row.branches, 1):
        first = len(ids) + len(branch.read) - 1
        last = first + len(branch.learned)
        targets[first:last], weights[first:last] = branch.learned, branch.weights
        decisions[first:last] = branch.decisions
        if branch.topic is not None:
            topics[first], ordinals[first] = branch.topic, branch.fitting
            ends[first:last], behinds[first:last] = branch.ends, branch.behinds
            copies[first:last] = [IGNORED if place is None else place for place in branch.copies]
        ids += branch.read + branch.learned
        positions += range(size, size + len(branch))
        blocks += [number] * len(branch)
    padding = length - len(ids)
    return {
        "ids": ids + [0] * padding, "positions": positions + [0] * padding, "blocks": blocks + [-1] * padding,
        "targets": targets, "weights": weights, "decisions": decisions, "topics": topics,
        "ordinals": ordinals, "starts": starts, "ends": ends, "behinds": behinds, "copies": copies,
    }  # fmt: skip


def _block_mask(blocks: Tensor) -> Tensor:
    """A token sees what stands before it in the prefix (block 0) and in its own block."""
    length = blocks.shape[1]
    is_before = torch.ones(length, length, dtype=torch.bool).tril()
    own, other = blocks[:, :, None], blocks[:, None, :]
    visible = is_before & ((other == 0) | (other == own))
    return torch.zeros(visible.shape, dtype=torch.bfloat16).masked_fill(~visible, _HIDDEN)[:, None]
