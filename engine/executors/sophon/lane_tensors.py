"""Each lane's own key and value tensors, made when it is first used and gone when it is freed."""

from contextlib import suppress
from dataclasses import dataclass

from engine.executors.sophon.chips import Chips
from engine.executors.sophon.layout import Layout
from engine.executors.sophon.sail import Tensor


@dataclass(slots=True)
class Lane:
    """Caches of all layers: keys and values, by layer and chip; `length` tokens stand in them."""

    keys: list[list[Tensor]]
    values: list[list[Tensor]]
    length: int = 0

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for layers in (self.keys, self.values) for chips in layers for tensor in chips]


class LaneTensors:
    """Makes lanes, copies between them and frees them."""

    def __init__(self, chips: Chips, layout: Layout) -> None:
        self._chips = chips
        self._layout = layout
        self._port = chips.graphs["block_cache_0"].chip_inputs[3]
        self._zeros = [chips.zeros(self._port, chip) for chip in range(layout.chips)]
        self._lanes: dict[int, Lane] = {}

    @property
    def lane_bytes(self) -> int:
        """Bytes of a lane on each chip; keys and values are 16 bit numbers."""
        layout = self._layout
        return 2 * 2 * layout.layers * layout.context_tokens * layout.row_elements

    def count_fitting(self, most: int) -> int:
        """Find out how many lanes the chips have memory for, by taking it; at most so many."""
        lanes: list[Lane] = []
        with suppress(RuntimeError):  # what sail raises when a chip's memory is full
            while len(lanes) < most:
                lanes.append(self._empty())
        return len(lanes)

    def new(self) -> Lane:
        """Return a lane without content. What a mask hides must still be numbers: 0 times NaN is NaN."""
        lane = self._empty()
        size = self._layout.context_tokens * self._layout.row_elements
        for layers in (lane.keys, lane.values):
            for chips in layers:
                for chip, tensor in enumerate(chips):
                    tensor.sync_d2d(self._zeros[chip], 0, 0, size)
        return lane

    def at(self, number: int) -> Lane:
        """Return a lane by its number, making it if need be."""
        if number not in self._lanes:
            self._lanes[number] = self.new()
        return self._lanes[number]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """See `engine.lanes.LaneMemory`."""
        origin = self._lanes[source]
        if tokens > origin.length:
            raise ValueError(f"lane {source} holds {origin.length} tokens, not {tokens}")
        if source == target and self._layout.form != "shifted":
            origin.length = tokens
            return
        lane = self.new() if source == target else self.at(target)
        rows, first = self._layout.context_tokens, self._layout.first_row
        moves = list(self._layout.moves((rows, first(0, origin.length)), (rows, first(0, tokens)), tokens))
        for here, there in zip(origin.tensors, lane.tensors, strict=True):
            for move in moves:
                there.sync_d2d(here, move.source, move.target, move.elements)
        lane.length = tokens
        self._lanes[target] = lane

    def free(self, number: int) -> None:
        self._lanes.pop(number, None)

    def close(self) -> None:
        self._lanes.clear()
        self._zeros.clear()

    def _empty(self) -> Lane:
        def layers() -> list[list[Tensor]]:
            chips = range(self._layout.chips)
            return [[self._chips.new(self._port, chip) for chip in chips] for _ in range(self._layout.layers)]

        return Lane(layers(), layers())
