"""The chips of one worker: memory on them, and launches of a bmodel's nets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.executors.sophon.graphs import NAMES_OF_NUMBERS, Graph, Port, read_graphs
from engine.executors.sophon.sail import EngineLLM, Sail, Tensor

#: How sail takes and gives each kind of number; half precision goes as bit patterns.
ARRAY_TYPES: dict[str, DTypeLike] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.uint16),
    "bfloat16": np.dtype(np.uint16),
    "int32": np.dtype(np.int32),
}

#: A net's inputs, or outputs: one list for each chip that takes part.
PerChip = list[list[Tensor]]


class Chips:
    """A bmodel loaded onto one chip or several; to be used from one thread at a time.

    Raises whatever sail raises if the bmodel cannot be loaded.
    """

    def __init__(self, sail: Sail, bmodel: Path, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self._sail = sail
        self._handles = [sail.Handle(id_) for id_ in ids]
        self._engine: EngineLLM | None = sail.EngineLLM(str(bmodel), list(ids))
        self.graphs = read_graphs(sail, self.engine)

    @property
    def engine(self) -> EngineLLM:
        assert self._engine is not None, "the bmodel is closed"
        return self._engine

    def new(self, port: Port, chip: int) -> Tensor:
        """Return memory for a whole input or output; what stands in it is anything."""
        assert port.number is not None, f"{port} is of a type that is not known here"
        dtype = getattr(self._sail.Dtype, NAMES_OF_NUMBERS[port.number])
        own_host_memory, own_chip_memory = False, True
        tensor = self._sail.Tensor(
            self._handles[chip], list(port.shape), dtype, own_host_memory, own_chip_memory
        )
        return cast(Tensor, tensor)

    def zeros(self, port: Port, chip: int) -> Tensor:
        tensor = self.new(port, chip)
        assert port.number is not None
        tensor.update_data(np.zeros(port.shape, ARRAY_TYPES[port.number]))
        return tensor

    def view(self, tensor: Tensor, shape: Sequence[int], offset: int = 0) -> Tensor:
        """Return a part of a tensor's memory as a tensor of its own."""
        if not offset and list(tensor.shape()) == list(shape):
            return tensor
        return cast(Tensor, self._sail.Tensor(tensor, list(shape), offset))

    def internal_inputs(self, graph: Graph) -> list[Tensor]:
        """Return the memory that the net itself has for its inputs."""
        get = self.engine.get_input_tensors if graph.addr_mode else self.engine.get_input_tensors_addrmode0
        tensors = get(graph.name)
        return [tensors[index] for index in range(len(graph.inputs))]

    def launch(self, graph: Graph, inputs: PerChip, outputs: PerChip) -> None:
        """Run a net; lists are by chip, shapes are those of the tensors. Returns when it is done."""
        self.engine.process(graph.name, _by_index(inputs), _by_index(outputs))

    def close(self) -> None:
        """Unload the bmodel; all tensors must be gone."""
        self._engine = None


def sharing_chips(graph: Graph) -> int:
    """Return how many chips take part in a net."""
    return len(graph.inputs) // len(graph.chip_inputs)


def to_array(values: NDArray[Any], port: Port, shape: Sequence[int]) -> NDArray[Any]:
    """Return values as what `update_data` takes for this port."""
    assert port.number is not None
    return np.ascontiguousarray(values.astype(ARRAY_TYPES[port.number])).reshape(shape)


def _by_index(per_chip: PerChip) -> dict[int, Tensor]:
    return dict(enumerate(tensor for tensors in per_chip for tensor in tensors))
