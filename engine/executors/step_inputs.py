"""The integers of one step, laid out in one buffer, so that one copy brings all of them to the device."""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import accumulate

import torch

from engine.batch import Batch, Span


@dataclass(frozen=True, slots=True)
class StepShape:
    """How many rows a step has, readers that attend, cache blocks per reader, and rows with logits.

    A reader is what attention takes as a sequence of its own: some neighbouring rows and the blocks
    that they look at.
    """

    rows: int
    readers: int
    blocks: int
    logits: int


@dataclass(frozen=True, slots=True)
class Reader:
    """`rows` rows that attend, each to its past, to the first `context_tokens` tokens in `blocks`."""

    rows: int
    context_tokens: int
    blocks: tuple[int, ...]


class StepInputs:
    """Views into a buffer of a step; whoever fills one on the host can copy it to one on the device.

    `tokens`, `positions`, `slots` [rows] and `logit_rows` [logits] are int64. For attention, int32:
    `contexts` [readers] tokens that each reader sees, `row_starts` and `context_starts` [readers + 1]
    their running sums, `table` [readers, blocks] the cache blocks.
    """

    def __init__(self, shape: StepShape, buffer: torch.Tensor) -> None:
        self.shape = shape
        self.buffer = buffer
        long_sizes = (shape.rows, shape.rows, shape.rows, shape.logits)
        self.tokens, self.positions, self.slots, self.logit_rows, rest = torch.split(
            buffer, [*long_sizes, buffer.numel() - sum(long_sizes)]
        )
        table_size = shape.readers * shape.blocks
        sizes = [shape.readers, shape.readers + 1, shape.readers + 1, table_size]
        ints = rest.view(torch.int32)[: sum(sizes)]
        self.contexts, self.row_starts, self.context_starts, table = torch.split(ints, sizes)
        self.table = table.view(shape.readers, shape.blocks)

    @classmethod
    def on(cls, device: torch.device, shape: StepShape) -> "StepInputs":
        """Return inputs of zeros on the device."""
        return cls(shape, torch.zeros(_words(shape), dtype=torch.long, device=device))

    @classmethod
    def on_host(cls, shape: StepShape, *, pinned: bool) -> "StepInputs":
        """Return inputs of zeros that can be filled; from pinned memory a copy need not be waited for."""
        return cls(shape, torch.zeros(_words(shape), dtype=torch.long, pin_memory=pinned))

    def to(self, device: torch.device) -> "StepInputs":
        return StepInputs(self.shape, self.buffer.to(device, non_blocking=True))

    def fill(self, batch: Batch, readers: Items[Reader]) -> None:
        """Write the step; there must be as many rows, readers and logits as the shape says."""
        self.tokens.numpy()[:] = batch.tokens
        self.positions.numpy()[:] = batch.positions
        self.slots.numpy()[:] = batch.slots
        self.logit_rows.numpy()[:] = batch.logit_rows
        contexts = [reader.context_tokens for reader in readers]
        self.contexts.numpy()[:] = contexts
        self.row_starts.numpy()[1:] = list(accumulate(reader.rows for reader in readers))
        self.context_starts.numpy()[1:] = list(accumulate(contexts))
        table = self.table.numpy()
        for place, reader in enumerate(readers):
            blocks = reader.blocks[: self.shape.blocks]
            table[place, : len(blocks)] = blocks


def readers_of_spans(spans: Items[Span]) -> list[Reader]:
    """Each sequence's rows attend together: what suits chunks of prompts."""
    return [Reader(span.rows, span.context_tokens, span.blocks) for span in spans]


def readers_of_rows(spans: Items[Span]) -> list[Reader]:
    """Each row attends alone: what suits steps of few rows, whatever sequences they belong to."""
    return [
        Reader(1, span.context_tokens - span.rows + row + 1, span.blocks)
        for span in spans
        for row in range(span.rows)
    ]


def blocks_seen(readers: Items[Reader], block_tokens: int) -> int:
    """Return how many blocks the reader with the longest context looks at."""
    return -(-max(reader.context_tokens for reader in readers) // block_tokens)


def pad_rows(
    batch: Batch, readers: list[Reader], rows: int, spare_block: int, block_tokens: int
) -> tuple[Batch, list[Reader]]:
    """Add rows that write to a block of nobody's and look only at it; each row is a reader."""
    missing = rows - len(batch.tokens)
    padded = Batch(
        tokens=batch.tokens + [0] * missing,
        positions=batch.positions + [0] * missing,
        slots=batch.slots + [spare_block * block_tokens] * missing,
        spans=batch.spans,
        logit_rows=batch.logit_rows + [0] * (rows - len(batch.logit_rows)),
    )
    return padded, readers + [Reader(1, 1, (spare_block,))] * missing


def _words(shape: StepShape) -> int:
    """Return the buffer's size in int64; two int32 share one."""
    ints = shape.readers + 2 * (shape.readers + 1) + shape.readers * shape.blocks
    return 3 * shape.rows + shape.logits + -(-ints // 2)
