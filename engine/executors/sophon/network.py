"""One sequence's tokens through a bmodel's nets: several at once, or one behind a cache."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.executors.sophon.chips import Chips, PerChip, sharing_chips, to_array
from engine.executors.sophon.graphs import Graph, Port
from engine.executors.sophon.lane_tensors import Lane
from engine.executors.sophon.layout import Layout
from engine.executors.sophon.masks import causal_mask, decode_mask
from engine.executors.sophon.sail import Tensor


class Network:
    """The nets and the memory that passes between them.

    After `prefill` or `decode`, `head` gives what the model says behind one of the tokens. Where a net
    is dynamic, its inputs have the size that counts; outputs always have the greatest, which it needs.
    """

    def __init__(self, chips: Chips, layout: Layout, spare: Lane | None) -> None:
        self._chips, self._layout, self._spare = chips, layout, spare
        graphs = chips.graphs
        self._wide = _Nets(chips, layout, "embedding", graphs["block_0"])
        self._narrow = _Nets(chips, layout, "embedding_cache", graphs["block_cache_0"])
        self._states: list[Tensor] = []
        self._history: list[list[Tensor]] = []
        if layout.takes_history:
            kv_nets = [graphs[f"block_kv_{layer}"] for layer in range(layout.layers)]
            self._history = [chips.internal_inputs(net) for net in kv_nets]
        self._head = graphs["lm_head"]
        self._head_inputs = _new_ports(chips, self._head.inputs, len(self._head.chip_inputs))
        self._head_outputs = _new_ports(chips, self._head.outputs, len(self._head.chip_outputs))
        if layout.has_prefill_mask and not layout.is_dynamic:
            self._wide.write_mask(
                causal_mask(layout.prefill_tokens, layout.columns, self._wide.mask_port.number)
            )

    def prefill(self, tokens: Sequence[int], lane: Lane, start: int) -> None:
        """Compute tokens behind the first `start` of the lane; their keys and values come into it.

        At most `prefill_tokens`; `start` is 0 unless the bmodel takes a history.
        """
        layout, count = self._layout, len(tokens)
        if not 0 < count <= layout.prefill_tokens or (start and not layout.takes_history):
            raise ValueError(f"{count} tokens behind {start} are not for one prefill")
        rows = count if layout.is_dynamic else layout.prefill_tokens
        nets = self._wide
        nets.embed(tokens)
        nets.write_positions(start, count, rows)
        if layout.has_prefill_mask and layout.is_dynamic:
            nets.write_mask(causal_mask(count, layout.columns, nets.mask_port.number))
        shape = list(nets.state_port.shape)
        shape[shape.index(layout.prefill_tokens)] = rows
        for layer in range(layout.layers):
            graph = self._chips.graphs[f"block_kv_{layer}" if start else f"block_{layer}"]
            history = self._move_history(lane, layer, start) if start else None
            nets.run(graph, shape, history)
            self._store(lane, layer, (layout.prefill_tokens, 0), start, start + count)
        lane.length = start + count
        self._states = nets.states

    def decode(self, token: int, lane: Lane) -> None:
        """Compute one token behind the lane's content; its key and value come into it."""
        layout, position = self._layout, lane.length
        if position >= layout.context_tokens:
            raise ValueError(f"the cache of {layout.context_tokens} rows is full")
        nets = self._narrow
        length = next(length for length in layout.decode_lengths if length >= position)
        nets.embed([token])
        nets.write_positions(position, 1, 1)
        is_shifted = layout.form == "shifted"
        nets.write_mask(
            decode_mask(position, length, layout.columns, nets.mask_port.number, ends_at_last_row=is_shifted)
        )
        for layer in range(layout.layers):
            graph = self._chips.graphs[f"block_cache_{layer}"]
            history = [
                [self._cut(keys, length), self._cut(values, length)]
                for keys, values in zip(lane.keys[layer], lane.values[layer], strict=True)
            ]
            nets.run(graph, nets.state_port.shape, history, self._shifted_outputs(layer))
            if not is_shifted:
                self._store(lane, layer, (1, 0), position, position + 1)
        if self._spare is not None:
            lane.keys, self._spare.keys = self._spare.keys, lane.keys
            lane.values, self._spare.values = self._spare.values, lane.values
        lane.length = position + 1
        self._states = nets.states

    def head(self, row: int) -> NDArray[Any]:
        """Return logits, or a single token id, behind the `row`-th of the tokens computed last."""
        layout = self._layout
        size = layout.columns * layout.hidden
        for chip, tensors in enumerate(self._head_inputs):
            tensors[0].sync_d2d(self._states[chip], row * size, 0, size)
        self._chips.launch(self._head, self._head_inputs, self._head_outputs)
        said: NDArray[Any] = self._head_outputs[0][0].asnumpy().reshape(layout.columns, -1)[0]
        return said

    def close(self) -> None:
        """Let go of all memory."""
        self._spare = None
        self._wide.close()
        self._narrow.close()
        for kept in (self._states, self._history, self._head_inputs, self._head_outputs):
            kept.clear()

    def _move_history(self, lane: Lane, layer: int, length: int) -> PerChip:
        """Copy the lane's rows to where the net looks for a history: it ignores any other memory."""
        layout = self._layout
        inside = self._history[layer]
        per_chip = len(inside) // layout.chips
        histories: PerChip = []
        for chip, cached in enumerate(zip(lane.keys[layer], lane.values[layer], strict=True)):
            places = inside[chip * per_chip + 2 : chip * per_chip + 4]
            for tensor, place in zip(cached, places, strict=True):
                place.sync_d2d(tensor, 0, 0, length * layout.row_elements)
            histories.append([self._cut(place, length) for place in places])
        return histories

    def _cut(self, tensor: Tensor, rows: int) -> Tensor:
        """Return the first rows of a cache."""
        if rows == self._layout.context_tokens:
            return tensor
        return self._chips.view(tensor, [1, rows, self._layout.heads, self._layout.head_size])

    def _shifted_outputs(self, layer: int) -> PerChip | None:
        """Where the net returns its whole cache, it goes into the spare lane, which then takes the place
        of the old one: so a launch that fails leaves no lane half shifted."""
        if self._spare is None:
            return None
        pairs = zip(self._spare.keys[layer], self._spare.values[layer], strict=True)
        return [list(pair) for pair in pairs]

    def _store(self, lane: Lane, layer: int, made: tuple[int, int], start: int, end: int) -> None:
        """Copy the keys and values that a net has made to their rows."""
        layout = self._layout
        nets = self._narrow if made[0] == 1 else self._wide
        target = (layout.context_tokens, layout.first_row(start, end))
        moves = list(layout.moves(made, target, end - start))
        for chip in range(layout.chips):
            key, value = nets.new_rows[chip]
            for move in moves:
                lane.keys[layer][chip].sync_d2d(key, move.source, move.target, move.elements)
                lane.values[layer][chip].sync_d2d(value, move.source, move.target, move.elements)


class _Nets:
    """The memory of the nets for several tokens, or of those for one; it is shared by all layers."""

    def __init__(self, chips: Chips, layout: Layout, embedding: str, block: Graph) -> None:
        self._chips, self._layout = chips, layout
        self._embedding = chips.graphs[embedding]
        self._id_port, self._position_port = self._embedding.chip_inputs[0], block.chip_inputs[1]
        self.state_port = block.chip_inputs[0]
        has_mask = len(block.chip_inputs) in (3, 5)
        self.mask_port = block.chip_inputs[2 if has_mask else 1]
        every = range(layout.chips)
        self._ids = [chips.new(self._id_port, chip) for chip in range(sharing_chips(self._embedding))]
        self._positions = [chips.new(self._position_port, chip) for chip in every]
        self._masks = [chips.new(self.mask_port, chip) for chip in every] if has_mask else []
        self._inputs = {
            "positions": list(self._positions),
            "masks": list(self._masks),
        }
        self.states = [chips.new(self.state_port, chip) for chip in every]
        self._next_states = [chips.new(block.chip_outputs[0], chip) for chip in every]
        self.new_rows = [[chips.new(port, chip) for port in block.chip_outputs[1:]] for chip in every]

    def embed(self, tokens: Sequence[int]) -> None:
        """Look the tokens up; they stand in the first column of the states.

        The net looks up each id by itself: so with several columns the ids are written in the order in
        which the states are wanted, whatever the net takes for a text.
        """
        columns = self._layout.columns
        ids = np.zeros(int(np.prod(self._id_port.shape)), np.int32)
        ids[: len(tokens) * columns : columns] = tokens
        array = to_array(ids, self._id_port, self._id_port.shape)
        for tensor in self._ids:
            tensor.update_data(array)
        shape = self._embedding.outputs[0].shape
        used = self.states[: len(self._ids)]
        outputs = [[self._chips.view(states, shape)] for states in used]
        self._chips.launch(self._embedding, [[ids] for ids in self._ids], outputs)

    def write_positions(self, start: int, count: int, rows: int) -> None:
        values = np.zeros((self._layout.columns, rows), np.int32)
        values[0, :count] = np.arange(start, start + count)
        self._inputs["positions"] = self._write(self._positions, self._position_port, values)

    def write_mask(self, mask: NDArray[Any]) -> None:
        self._inputs["masks"] = self._write(self._masks, self.mask_port, mask)

    def run(
        self,
        graph: Graph,
        shape: Sequence[int],
        history: PerChip | None = None,
        new_rows: PerChip | None = None,
    ) -> None:
        """Run one layer on the states, of which those of this shape count."""
        view = self._chips.view
        inputs: PerChip = [[view(states, shape)] for states in self.states]
        for name in ("positions", "masks"):
            for row, tensor in zip(inputs, self._inputs[name], strict=False):
                row.append(tensor)
        for row, caches in zip(inputs, history or [], strict=False):
            row.extend(caches)
        outputs = [
            [states, *rows] for states, rows in zip(self._next_states, new_rows or self.new_rows, strict=True)
        ]
        self._chips.launch(graph, inputs, outputs)
        self.states, self._next_states = self._next_states, self.states

    def close(self) -> None:
        self._inputs.clear()
        for kept in (self._ids, self._positions, self._masks, self.states, self._next_states, self.new_rows):
            kept.clear()

    def _write(self, tensors: list[Tensor], port: Port, values: NDArray[Any]) -> list[Tensor]:
        array = to_array(values, port, values.shape)
        views = [self._chips.view(tensor, values.shape) for tensor in tensors]
        for view in views:
            view.update_data(array)
        return views


def _new_ports(chips: Chips, ports: Sequence[Port], per_chip: int) -> PerChip:
    """Return memory for all ports of a net, by chip."""
    made = [chips.new(port, index // per_chip) for index, port in enumerate(ports)]
    return [made[first : first + per_chip] for first in range(0, len(made), per_chip)]
