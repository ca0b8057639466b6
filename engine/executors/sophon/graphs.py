"""What a bmodel says of itself: its nets, their inputs and outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.executors.sophon.sail import EngineLLM, Sail

Number = Literal["float32", "float16", "bfloat16", "int32"]

#: The vendor's names of the number types that nets of a language model use.
NAMES_OF_NUMBERS: dict[Number, str] = {
    "float32": "BM_FLOAT32",
    "float16": "BM_FLOAT16",
    "bfloat16": "BM_BFLOAT16",
    "int32": "BM_INT32",
}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a net; `number` is None for a type that is not known here."""

    name: str
    shape: tuple[int, ...]
    number: Number | None

    def __str__(self) -> str:
        return f"{self.name}{list(self.shape)} {self.number}"


@dataclass(frozen=True, slots=True)
class Graph:
    """A net with its largest stage's ports, those of all chips behind each other.

    `stages` holds the shapes of the inputs for each stage.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    stages: tuple[tuple[tuple[int, ...], ...], ...]
    is_dynamic: bool
    addr_mode: int

    @property
    def chip_inputs(self) -> tuple[Port, ...]:
        """The inputs that belong to the first chip: where several share the work, names come again."""
        return _until_repeated(self.inputs)

    @property
    def chip_outputs(self) -> tuple[Port, ...]:
        return _until_repeated(self.outputs)

    def __str__(self) -> str:
        kind = "dynamic" if self.is_dynamic else "static"
        inputs, outputs = (", ".join(map(str, ports)) for ports in (self.inputs, self.outputs))
        return f"{self.name} ({kind}): {inputs} -> {outputs}"


def read_graphs(sail: Sail, engine: EngineLLM) -> dict[str, Graph]:
    """Return the nets by name."""
    numbers = {number: getattr(sail.Dtype, name) for number, name in NAMES_OF_NUMBERS.items()}
    return {name: _read_graph(engine, name, numbers) for name in engine.get_graph_names()}


def _read_graph(engine: EngineLLM, name: str, numbers: Mapping[Number, Any]) -> Graph:
    input_names, output_names = engine.get_input_names(name), engine.get_output_names(name)
    stages = tuple(
        tuple(tuple(engine.get_input_shape(name, index, stage)) for index in range(len(input_names)))
        for stage in range(engine.get_stage_num(name))
    )
    inputs = tuple(
        Port(port, stages[0][index], _number(engine.get_input_dtype(name, index), numbers))
        for index, port in enumerate(input_names)
    )
    outputs = tuple(
        Port(
            port,
            tuple(engine.get_output_shape(name, index, 0)),
            _number(engine.get_output_dtype(name, index), numbers),
        )
        for index, port in enumerate(output_names)
    )
    return Graph(name, inputs, outputs, stages, engine.get_is_dynamic(name), engine.get_addr_mode(name))


def _number(dtype: object, numbers: Mapping[Number, Any]) -> Number | None:
    return next((number for number, theirs in numbers.items() if theirs == dtype), None)


def _until_repeated(ports: tuple[Port, ...]) -> tuple[Port, ...]:
    first = ports[0].name
    again = next((place for place, port in enumerate(ports) if place and port.name == first), len(ports))
    return ports[:again]
