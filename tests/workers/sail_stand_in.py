"""A stand-in for `sophon.sail` in numpy, stricter than the real one: misuse raises, or gives garbage where
the real one does so in silence.

- New memory holds garbage, not-a-numbers among it; a view dies with the memory that it is a view of.
- `update_data` takes exactly the shape and type, `sync_d2d` stays inside both tensors, of one type and chip.
- Static nets take exactly the shapes of one of their stages. Dynamic nets take less along the tokens, but
  use all of the memory that the greatest output needs.
- Nets with a history read it from their own input memory, wherever the history that they are given stands;
  that memory is shared by all nets.
- Masks are read as what the net says that they are.
- Two launches at once are an error, and so is more memory than a chip has.
"""

import json
import threading
import weakref
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import numpy as np

from tests.workers.sail_nets import Ports, build_nets, from_bits, to_bits


class Dtype(IntEnum):
    BM_FLOAT32 = 0
    BM_FLOAT16 = 1
    BM_INT32 = 6
    BM_BFLOAT16 = 8


SIZES = {Dtype.BM_FLOAT32: 4, Dtype.BM_FLOAT16: 2, Dtype.BM_INT32: 4, Dtype.BM_BFLOAT16: 2}
ARRAY_TYPES = {
    Dtype.BM_FLOAT32: np.float32,
    Dtype.BM_FLOAT16: np.uint16,
    Dtype.BM_INT32: np.int32,
    Dtype.BM_BFLOAT16: np.uint16,
}
NUMBERS = {"f32": Dtype.BM_FLOAT32, "f16": Dtype.BM_FLOAT16, "i32": Dtype.BM_INT32, "bf16": Dtype.BM_BFLOAT16}


class Chip:
    """Counts a chip's memory. `room_bytes` None is as much as is asked for; `broken` fails every launch."""

    def __init__(self):
        self.room_bytes = None
        self.used_bytes = 0
        self.most_used_bytes = 0
        self.broken = False
        self.launches = []

    def allocate(self, size):
        if self.room_bytes is not None and self.used_bytes + size > self.room_bytes:
            raise RuntimeError("no enough device memory")
        self.used_bytes += size
        self.most_used_bytes = max(self.most_used_bytes, self.used_bytes)

    def give_back(self, size):
        self.used_bytes -= size


CHIPS = {number: Chip() for number in range(4)}


@contextmanager
def fresh_chips():
    """Chips without any load before and after."""
    for number in CHIPS:
        CHIPS[number] = Chip()
    yield CHIPS
    assert [chip.used_bytes for chip in CHIPS.values()] == [0, 0, 0, 0], "memory was not given back"


class Memory:
    """Bytes on a chip, full of garbage at first."""

    def __init__(self, chip, size):
        CHIPS[chip].allocate(size)
        weakref.finalize(self, CHIPS[chip].give_back, size)
        self.chip = chip
        self.bytes = np.empty(size, np.uint8)
        self.spoil()

    def spoil(self):
        """Fill it with what is not a number in any of the types."""
        self.bytes[:] = 0xFF


class Handle:
    def __init__(self, dev_id):
        if dev_id not in CHIPS:
            raise RuntimeError("invalid device id")
        self.dev_id = dev_id


class Tensor:
    """Tensor(handle, shape, dtype, own_sys_data, own_dev_data), or Tensor(tensor, shape, offset): a view."""

    def __init__(self, source, shape, *rest):
        if isinstance(source, Tensor):
            (offset,) = rest
            self._type = source._type
            self._own = None
            self._memory = source._memory
            self._first = source._first + offset * SIZES[self._type]
            room = source._size - offset * SIZES[self._type]
        else:
            dtype, own_sys_data, own_dev_data = rest
            assert (own_sys_data, own_dev_data) == (False, True), "a tensor without memory"
            self._type = Dtype(dtype)
            room = int(np.prod(shape)) * SIZES[self._type]
            self._own = Memory(source.dev_id, room)
            self._memory = weakref.ref(self._own)
            self._first = 0
        if min(shape) < 1:
            raise RuntimeError("invalid shape")
        self._shape = list(shape)
        self._size = int(np.prod(shape)) * SIZES[self._type]
        if offset_beyond := self._size > room:
            raise RuntimeError(f"size out of range: {offset_beyond}")

    @classmethod
    def inside(cls, memory, first, shape, dtype):
        """A view of memory that belongs to a net."""
        tensor = cls.__new__(cls)
        tensor._type, tensor._own, tensor._memory, tensor._first = dtype, None, weakref.ref(memory), first
        tensor._shape, tensor._size = list(shape), int(np.prod(shape)) * SIZES[dtype]
        return tensor

    def shape(self):
        return list(self._shape)

    def dtype(self):
        return self._type

    @property
    def memory(self):
        memory = self._memory()
        assert memory is not None, "the memory behind this view was freed"
        return memory

    @property
    def raw(self):
        return self.memory.bytes[self._first : self._first + self._size]

    def elements(self):
        return self.raw.view(ARRAY_TYPES[self._type])

    def update_data(self, array):
        assert isinstance(array, np.ndarray)
        assert array.dtype == ARRAY_TYPES[self._type], f"{array.dtype} for {self._type!r}"
        assert list(array.shape) == self._shape, f"{array.shape} for {self._shape}"
        assert array.flags.c_contiguous
        self.elements()[:] = array.reshape(-1)

    def asnumpy(self):
        assert self._type in (Dtype.BM_FLOAT32, Dtype.BM_INT32), "half precision cannot be read"
        return self.elements().copy().reshape(self._shape)

    def sync_d2d(self, src, src_offset, dst_offset, count):
        if self._type != src._type or self.memory.chip != src.memory.chip:
            raise RuntimeError("mismatch Tensor")
        source, target = src.elements(), self.elements()
        if min(src_offset, dst_offset, count) < 0:
            raise RuntimeError("size out of range")
        if src_offset + count > len(source) or dst_offset + count > len(target):
            raise RuntimeError("size out of range")
        begin, end = src._first + src_offset * SIZES[self._type], self._first + dst_offset * SIZES[self._type]
        assert self.memory is not src.memory or abs(begin - end) >= count * SIZES[self._type], "overlap"
        target[dst_offset : dst_offset + count] = source[src_offset : src_offset + count]


class EngineLLM:
    """A "bmodel" here is a JSON file: see `sail_nets.build_nets`."""

    def __init__(self, path, tpu_ids):
        assert isinstance(path, str)
        assert all(isinstance(id_, int) for id_ in tpu_ids)
        self._ids = list(tpu_ids)
        for id_ in self._ids:
            Handle(id_)
        try:
            description = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RuntimeError("EngineLLM bmodel error!") from None
        if description.get("chips", 1) != len(self._ids):
            raise RuntimeError("Runtime Create Failed!")
        self._nets = build_nets(description)
        size = max(sum(map(self._port_bytes, net.all_inputs)) for net in self._nets.values())
        self._inside = [Memory(id_, size) for id_ in self._ids]
        self._busy = threading.Lock()

    def get_graph_names(self):
        return list(self._nets)

    def get_is_dynamic(self, graph):
        return self._nets[graph].is_dynamic

    def get_addr_mode(self, graph):
        return self._nets[graph].addr_mode

    def get_stage_num(self, graph):
        return len(self._nets[graph].stages)

    def get_input_names(self, graph):
        return [port.name for port in self._ports(graph, "inputs")]

    def get_input_shape(self, graph, index, stage=0):
        return list(self._ports(graph, "inputs", stage)[index].shape)

    def get_input_dtype(self, graph, index):
        return NUMBERS[self._ports(graph, "inputs")[index].number]

    def get_output_names(self, graph):
        return [port.name for port in self._ports(graph, "outputs")]

    def get_output_shape(self, graph, index, stage=0):
        return list(self._ports(graph, "outputs", stage)[index].shape)

    def get_output_dtype(self, graph, index):
        return NUMBERS[self._ports(graph, "outputs")[index].number]

    def get_input_tensors(self, graph):
        return self._internal(graph) if self._nets[graph].addr_mode == 1 else {}

    def get_input_tensors_addrmode0(self, graph):
        return self._internal(graph)

    def process(self, graph, inputs, outputs):
        assert self._busy.acquire(blocking=False), "two launches at once"
        try:
            for id_ in self._ids:
                CHIPS[id_].launches.append(graph)
            if any(CHIPS[id_].broken for id_ in self._ids):
                raise RuntimeError("bmrt_launch_tensor_ex fail!")
            self._launch(graph, inputs, outputs)
        finally:
            self._busy.release()

    def _launch(self, graph, inputs, outputs):
        net = self._nets[graph]
        ports = self._ports(graph, "inputs")
        assert sorted(inputs) == list(range(len(ports))), f"{graph} needs inputs {len(ports)}"
        stage = self._stage_of(net, inputs)
        for index, tensor in inputs.items():
            self._check_port(graph, ports[index], tensor, index // (len(ports) // net.chips))
        values = self._read(graph, net, inputs)
        made = net.compute(stage, values)
        if net.reads_inside:
            for memory in self._inside:
                memory.spoil()
        out_ports = self._ports(graph, "outputs", stage)
        assert sorted(outputs) == list(range(len(out_ports))), f"{graph} needs outputs {len(out_ports)}"
        for index, tensor in outputs.items():
            port = out_ports[index]
            self._check_port(graph, port, tensor, index // (len(out_ports) // net.chips))
            assert tensor.shape() == list(port.shape), f"{graph}: {tensor.shape()} for {port}"
            bits = to_bits(made[index], port.number).reshape(-1)
            tensor.raw[:] = 0xFF  # a dynamic net uses all of the memory for what it has to do
            tensor.elements()[: bits.size] = bits

    def _read(self, graph, net, inputs):
        """Return the inputs as float32 or int32; a history is read from where the net looks for it."""
        inside = self._internal(graph) if net.reads_inside else {}
        values = {}
        for index, tensor in inputs.items():
            port = self._ports(graph, "inputs")[index]
            if index in inside and port.name.startswith("history"):
                tensor = Tensor(inside[index], tensor.shape(), 0)
            values[index] = from_bits(tensor.elements(), port.number).reshape(tensor.shape())
        return values

    def _stage_of(self, net, inputs):
        shapes = [tuple(inputs[index].shape()) for index in sorted(inputs)]
        if net.is_dynamic:
            net.check_dynamic(shapes)
            return 0
        for stage in range(len(net.stages)):
            if shapes == [port.shape for port in self._ports(net.name, "inputs", stage)]:
                return stage
        raise RuntimeError(f"{net.name} has no stage for {shapes}")

    def _check_port(self, graph, port, tensor, chip):
        assert tensor.dtype() == NUMBERS[port.number], f"{graph}: {tensor.dtype()!r} for {port}"
        assert tensor.memory.chip == self._ids[chip], f"{graph}: {port} on the wrong chip"

    def _internal(self, graph):
        ports = self._ports(graph, "inputs")
        per_chip = len(ports) // self._nets[graph].chips
        tensors, first = {}, 0
        for index, port in enumerate(ports):
            first = 0 if index % per_chip == 0 else first
            memory = self._inside[index // per_chip]
            tensors[index] = Tensor.inside(memory, first, port.shape, NUMBERS[port.number])
            first += self._port_bytes(port)
        return tensors

    def _ports(self, graph, side, stage=0) -> Ports:
        net = self._nets[graph]
        return list(getattr(net.stages[stage], side)) * net.chips

    @staticmethod
    def _port_bytes(port):
        return int(np.prod(port.shape)) * SIZES[NUMBERS[port.number]]
