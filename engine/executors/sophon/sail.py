"""The vendor's runtime `sophon.sail`: what of it is used here, and what to install where it is missing."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol, cast

from numpy.typing import NDArray

_WANTED = "a bmodel needs SOPHGO's sophon-sail: install the wheel of the vendor's SDK that fits this machine"


class SailMissing(Exception):
    """The vendor's runtime cannot be used; the message is one line that says what to install."""


class Tensor(Protocol):
    """Memory on one chip, or a view of some. Offsets and counts are in elements."""

    def shape(self) -> Sequence[int]: ...

    def update_data(self, data: NDArray[Any]) -> None: ...

    def asnumpy(self) -> NDArray[Any]: ...

    def sync_d2d(self, src: "Tensor", src_offset: int, dst_offset: int, count: int) -> None: ...


class EngineLLM(Protocol):
    """A loaded bmodel; tensors are told by their index, which goes over all chips. Not thread-safe."""

    def get_graph_names(self) -> Sequence[str]: ...

    def get_is_dynamic(self, graph: str) -> bool: ...

    def get_addr_mode(self, graph: str) -> int: ...

    def get_stage_num(self, graph: str) -> int: ...

    def get_input_names(self, graph: str) -> Sequence[str]: ...

    def get_input_shape(self, graph: str, index: int, stage: int = 0) -> Sequence[int]: ...

    def get_input_dtype(self, graph: str, index: int) -> Any: ...

    def get_output_names(self, graph: str) -> Sequence[str]: ...

    def get_output_shape(self, graph: str, index: int, stage: int = 0) -> Sequence[int]: ...

    def get_output_dtype(self, graph: str, index: int) -> Any: ...

    def get_input_tensors(self, graph: str) -> Mapping[int, Tensor]: ...

    def get_input_tensors_addrmode0(self, graph: str) -> Mapping[int, Tensor]: ...

    def process(self, graph: str, inputs: dict[int, Tensor], outputs: dict[int, Tensor]) -> None: ...


class Sail(Protocol):
    """The module."""

    Dtype: Any
    Handle: Any
    Tensor: Any
    EngineLLM: Any


def load_sail() -> Sail:
    """Return `sophon.sail`. Raises SailMissing if it is not there, or not the vendor's."""
    try:
        from sophon import sail
    except ImportError as error:
        if find_spec("sophon") is None:
            raise SailMissing(_WANTED) from error
        raise SailMissing(f"{_WANTED}; what is installed cannot be used: {error}") from error
    if not hasattr(sail, "EngineLLM"):
        raise SailMissing(
            f"{_WANTED}; the package 'sophon' that is installed is an empty placeholder of that name, or too "
            "old to have EngineLLM: remove it first"
        )
    return cast(Sail, sail)
