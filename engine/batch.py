"""What the engine asks an executor to compute: flat rows of (token, position, cache slot)."""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.scheduler import Work


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring rows of one sequence: rows `first_row` up to `first_row + rows` of the batch.

    They attend to the first `context_tokens` tokens of the sequence (themselves included, each only
    to its past), which stand in `blocks`.
    """

    first_row: int
    rows: int
    context_tokens: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows, all sequences behind each other; logits are wanted for `logit_rows`.

    A sequence that has a token chosen may have several of them: that of its last token and those of
    the guesses behind it.
    """

    tokens: list[int]
    positions: list[int]
    slots: list[int]
    spans: list[Span]
    logit_rows: list[int]


class Executor(Protocol):
    """A loaded model on a device, with a cache of `cache_blocks` blocks of `block_tokens` tokens each.

    A step of up to `cheap_rows` rows takes hardly longer than a step of one.
    """

    cache_blocks: int
    block_tokens: int
    cheap_rows: int

    def run(self, batch: Batch) -> torch.Tensor:
        """Compute the rows, write their keys and values to their slots.

        Returns float32 logits on the host, [len(batch.logit_rows), vocabulary].
        """
        ...


def build_batch(works: Items[Work], block_tokens: int) -> Batch:
    """Lay the works of a step out as rows."""
    batch = Batch([], [], [], [], [])
    for work in works:
        blocks = work.sequence.blocks
        first_row = len(batch.tokens)
        batch.tokens.extend(work.sequence.tokens[work.start : work.end])
        batch.tokens.extend(work.guess)
        end = work.end + len(work.guess)
        for position in range(work.start, end):
            batch.positions.append(position)
            batch.slots.append(blocks[position // block_tokens] * block_tokens + position % block_tokens)
        batch.spans.append(Span(first_row, end - work.start, end, tuple(blocks)))
        if work.reaches_the_end:
            batch.logit_rows.extend(range(first_row + work.end - work.start - 1, len(batch.tokens)))
    return batch
