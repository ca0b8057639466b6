"""A bmodel as an executor of the engine: a batch's spans one after the other, each in its own lane."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.batch import Batch, Span
from engine.cache import BLOCK_TOKENS
from engine.executors.sophon.chips import Chips
from engine.executors.sophon.lane_tensors import LaneTensors
from engine.executors.sophon.layout import UnknownLayout, find_layout
from engine.executors.sophon.network import Network
from engine.executors.sophon.sail import Sail

#: Stands in logits for every token but the one that a head without logits has chosen.
NO_CHANCE = -np.inf


class DoesNotFitChip(Exception):
    """The chips have no memory for the cache of a single sequence."""


class SophonExecutor:
    """A bmodel on one chip or several that share its work, with a lane for each sequence.

    `most_lanes` bounds the lanes, and so does `memory_bytes` on each chip, the bmodel included; otherwise
    it is what the chips have room for. `vocabulary_size` is needed for heads that give ids alone. Raises
    UnknownLayout or DoesNotFitChip.
    """

    block_tokens = BLOCK_TOKENS
    cheap_rows = 1

    def __init__(
        self,
        sail: Sail,
        bmodel: Path,
        chips: Sequence[int],
        *,
        most_lanes: int,
        vocabulary_size: int,
        memory_bytes: int | None = None,
    ) -> None:
        self._chips = Chips(sail, bmodel, chips)
        self.layout = layout = find_layout(self._chips.graphs)
        if layout.chips != len(self._chips.ids):
            raise UnknownLayout(
                f"the bmodel is compiled for {layout.chips} chips that share its work, but "
                f"{len(self._chips.ids)} are given"
            )
        self._vocabulary_size = layout.logits or vocabulary_size
        self._lanes = LaneTensors(self._chips, layout)
        self._network = Network(self._chips, layout, self._lanes.new() if layout.form == "shifted" else None)
        if memory_bytes is not None:
            room = memory_bytes - bmodel.stat().st_size // layout.chips
            most_lanes = min(most_lanes, room // self._lanes.lane_bytes)
        self.lanes = self._lanes.count_fitting(most_lanes)
        if self.lanes < 1:
            size = self._lanes.lane_bytes
            raise DoesNotFitChip(f"there is no room for the cache of one sequence, {size} bytes on each chip")
        self.lane_slots = -(-layout.context_tokens // self.block_tokens) * self.block_tokens
        self.cache_blocks = self.lanes * self.lane_slots // self.block_tokens

    def run(self, batch: Batch) -> torch.Tensor:
        """Compute the rows; see `engine.batch.Executor`."""
        logits = np.empty((len(batch.logit_rows), self._vocabulary_size), np.float32)
        place_of_row = {row: place for place, row in enumerate(batch.logit_rows)}
        for span in batch.spans:
            self._compute(batch, span, place_of_row, logits)
        return torch.from_numpy(logits)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """See `engine.lanes.LaneMemory`."""
        self._lanes.copy(source, target, tokens)

    def free(self, lane: int) -> None:
        """See `engine.lanes.LaneMemory`."""
        self._lanes.free(lane)

    def close(self) -> None:
        """Give all memory back and unload the bmodel."""
        self._network.close()
        self._lanes.close()
        self._chips.close()

    def _compute(
        self, batch: Batch, span: Span, place_of_row: dict[int, int], logits: NDArray[np.float32]
    ) -> None:
        row, end = span.first_row, span.first_row + span.rows
        lane = self._lanes.at(batch.slots[row] // self.lane_slots)
        if span.context_tokens > self.layout.context_tokens:
            raise ValueError(f"{span.context_tokens} tokens do not fit {self.layout.context_tokens} rows")
        if self.layout.form == "shifted" and batch.positions[row] not in (0, lane.length):
            raise ValueError(f"a context of {lane.length} tokens cannot go on at {batch.positions[row]}")
        lane.length = batch.positions[row]
        while row < end:
            count = self._rows_at_once(lane.length, end - row)
            tokens = batch.tokens[row : row + count]
            if count == 1:
                self._network.decode(tokens[0], lane)
            else:
                self._network.prefill(tokens, lane, lane.length)
            for offset in range(count):
                if (place := place_of_row.get(row + offset)) is not None:
                    logits[place] = self._scores(self._network.head(offset))
            row += count

    def _rows_at_once(self, known: int, rest: int) -> int:
        if rest == 1 or (known and not self.layout.takes_history):
            return 1
        return min(rest, self.layout.prefill_tokens)

    def _scores(self, said: NDArray[Any]) -> NDArray[Any]:
        """Return logits; of an id alone, those that leave no other choice."""
        if self.layout.logits is not None:
            return said
        scores = np.full(self._vocabulary_size, NO_CHANCE, np.float32)
        scores[int(said[0])] = 0.0
        return scores
