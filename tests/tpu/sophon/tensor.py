"""sail's `Handle` and `Tensor` on the simulator."""

import ctypes
import enum
import math
import weakref
from ctypes import byref, c_void_p

import numpy
from sophon.simulator import DeviceMemory, simulator

#: Every byte of new memory: large and finite as bf16 and f32, and no id of any vocabulary as int32. Sail
#: fills new memory with zeros; nothing may depend on that, since memory that is used again is not new.
GARBAGE = 0x5A

Dtype = enum.Enum(
    "Dtype",
    {
        "BM_FLOAT32": 0,
        "BM_FLOAT16": 1,
        "BM_INT8": 2,
        "BM_UINT8": 3,
        "BM_INT16": 4,
        "BM_UINT16": 5,
        "BM_INT32": 6,
        "BM_UINT32": 7,
        "BM_BFLOAT16": 8,
    },
)

#: What `asnumpy` gives and `update_data` takes: 16-bit floats are their bit patterns.
ARRAYS = {
    Dtype.BM_FLOAT32: numpy.float32,
    Dtype.BM_FLOAT16: numpy.uint16,
    Dtype.BM_INT8: numpy.int8,
    Dtype.BM_UINT8: numpy.uint8,
    Dtype.BM_INT16: numpy.int16,
    Dtype.BM_UINT16: numpy.uint16,
    Dtype.BM_INT32: numpy.int32,
    Dtype.BM_UINT32: numpy.uint32,
    Dtype.BM_BFLOAT16: numpy.uint16,
}


class SailTensorError(Exception):
    """A tensor was asked for what it cannot do."""


class Handle:
    """The simulator has device 0 only."""

    def __init__(self, tpu_id):
        if tpu_id != 0:
            raise RuntimeError("bm_dev_request failed")
        self._simulator = simulator()

    def get_device_id(self):
        return 0

    def get_sn(self):
        return "Error"

    def get_target(self):
        return "Error"


class Tensor:
    """`Tensor(handle, shape, dtype, own_sys_data, own_dev_data)`, `Tensor(handle, array)`, or, as a view,
    `Tensor(src, shape, offset)` with the offset in elements; a view does not keep its source's memory alive.
    """

    def __init__(self, *arguments, **named):
        first = arguments[0] if arguments else named.get("handle", named.get("src"))
        data = named.get("data", arguments[1] if len(arguments) > 1 else None)
        self.memory, self._system, self._owns_device = DeviceMemory(), None, False
        if isinstance(first, Tensor):
            self._view(*arguments, **named)
        elif isinstance(data, numpy.ndarray):
            self._take(*arguments, **named)
        else:
            self._allocate(*arguments, **named)

    def _allocate(self, handle, shape, dtype, own_sys_data=False, own_dev_data=False):
        if not shape or min(shape) <= 0:
            shape, own_sys_data, own_dev_data = [], False, False
        self._handle, self._shape, self._dtype = handle, [int(size) for size in shape], Dtype(dtype)
        if own_dev_data:
            self.memory, self._owns_device = _new_memory(self.nbytes()), True
            weakref.finalize(self, simulator().bm_free_device, simulator().handle, self.memory)
        if own_sys_data:
            self._system = numpy.full(self.nbytes(), GARBAGE, numpy.uint8)

    def _take(self, handle, data, own_sys_data=True, own_dev_data=True):
        (dtype,) = [
            one
            for one in ("BM_FLOAT32", "BM_INT8", "BM_UINT8", "BM_INT32")
            if ARRAYS[Dtype[one]] == data.dtype
        ]
        self._allocate(handle, list(data.shape), Dtype[dtype], own_sys_data, own_dev_data)
        self.update_data(data)

    def _view(self, src, shape, offset, no_copy=True):
        if not shape or min(shape) <= 0:
            raise SailTensorError("invalid shape")
        if not src.is_dev_data_valid():
            raise SailTensorError("invalid Tensor")
        if not no_copy:
            raise SailTensorError("not supported")
        self._handle, self._shape, self._dtype = src._handle, [int(size) for size in shape], src._dtype
        start = offset * self.element_size()
        if start + self.nbytes() > src.nbytes():
            raise SailTensorError("size out of range")
        self.memory = DeviceMemory.from_buffer_copy(src.memory)
        self.memory.address, self.memory.size = src.memory.address + start, self.nbytes()
        if src._system is not None:
            self._system = src._system[start : start + self.nbytes()]

    @classmethod
    def internal(cls, shape, dtype, memory):
        """Memory that belongs to the bmodel."""
        tensor = cls(None, shape, dtype)
        tensor.memory = DeviceMemory.from_buffer_copy(memory)
        return tensor

    def shape(self):
        return list(self._shape)

    def dtype(self):
        return self._dtype

    def device_id(self):
        return 0

    def size(self):
        return math.prod(self._shape)

    def element_size(self):
        return numpy.dtype(ARRAYS[self._dtype]).itemsize

    def nbytes(self):
        return self.size() * self.element_size()

    def own_sys_data(self):
        return self._system is not None

    def own_dev_data(self):
        return self._owns_device

    def is_dev_data_valid(self):
        return self.memory.address != 0 and self.memory.size != 0

    def is_sys_data_valid(self):
        return self._system is not None

    def reshape(self, shape):
        if math.prod(shape) * self.element_size() > max(self.memory.size, len(self._system or ())):
            raise SailTensorError("size out of range")
        self._shape = [int(size) for size in shape]

    def update_data(self, data):
        """Takes exactly this shape and dtype; writes system memory where there is some, else the device's."""
        if list(data.shape) != self._shape:
            raise SailTensorError("invalid argument")
        is_half = self._dtype in (Dtype.BM_FLOAT16, Dtype.BM_BFLOAT16)
        if data.dtype not in ((numpy.uint16, numpy.int16) if is_half else (ARRAYS[self._dtype],)):
            raise SailTensorError("Wrong dtype of input array!")
        data = numpy.ascontiguousarray(data)
        if self._system is not None:
            self._system[: data.nbytes] = data.view(numpy.uint8).reshape(-1)
        elif self.is_dev_data_valid():
            self._write(data, data.nbytes)
        else:
            raise SailTensorError("invalid Tensor")

    def asnumpy(self, shape=None):
        """System memory where there is some, which only `sync_d2s` renews; else what the device has."""
        if self._system is None and not self.is_dev_data_valid():
            raise SailTensorError("invalid Tensor")
        data = self._read(self.nbytes()) if self._system is None else self._system.copy()
        return data.view(ARRAYS[self._dtype]).reshape(self._shape if shape is None else shape)

    def sync_s2d(self, *arguments):
        """All, or so many bytes, or (src, src_offset, dst_offset, count) in elements."""
        if len(arguments) == 4:
            src, start, to, count = self._checked(*arguments)
            self._write(src._system[start : start + count], count, to)
        elif self._system is not None:
            self._write(self._system, arguments[0] if arguments else self.nbytes())

    def sync_d2s(self, *arguments):
        """All, or so many bytes, or (src, src_offset, dst_offset, count) in elements."""
        if len(arguments) == 4:
            src, start, to, count = self._checked(*arguments)
            self._system[to : to + count] = src._read(count, start)
        elif self._system is not None:
            count = arguments[0] if arguments else self.nbytes()
            self._system[:count] = self._read(count)

    def sync_d2d(self, src, offset_src, offset_dst, length):
        """Offsets and length in elements."""
        if not (src.is_dev_data_valid() and self.is_dev_data_valid()):
            raise SailTensorError("invalid Tensor")
        src, start, to, count = self._checked(src, offset_src, offset_dst, length)
        c = simulator()
        c.check("bm_memcpy_d2d_byte", c.handle, self.memory, to, src.memory, start, count)

    def memory_set(self, value):
        """Fill all of it, wherever it is, with one number."""
        filled = numpy.resize(_element(value, self._dtype), self.size())
        if self._system is not None:
            self._system[:] = filled.view(numpy.uint8)
        if self.is_dev_data_valid():
            self._write(filled, self.nbytes())

    def zeros(self):
        self.memory_set(0)

    def _checked(self, src, offset_src, offset_dst, length):
        """Return the same in bytes."""
        if src._dtype is not self._dtype:
            raise SailTensorError("mismatch Tensor")
        if offset_src + length > src.size() or offset_dst + length > self.size():
            raise SailTensorError("size out of range")
        size = self.element_size()
        return src, offset_src * size, offset_dst * size, length * size

    def _write(self, data, count, to=0):
        c, source = simulator(), data.ctypes.data_as(c_void_p)
        c.check("bm_memcpy_s2d_partial_offset", c.handle, self.memory, source, count, to)

    def _read(self, count, start=0):
        c, data = simulator(), numpy.empty(count, numpy.uint8)
        target = data.ctypes.data_as(c_void_p)
        c.check("bm_memcpy_d2s_partial_offset", c.handle, target, self.memory, count, start)
        return data


def _element(value, dtype):
    """Return an array of one element, as the device holds it."""
    if dtype is Dtype.BM_FLOAT16:
        return numpy.array([value], numpy.float16).view(numpy.uint16)
    if dtype is Dtype.BM_BFLOAT16:
        return numpy.array([value], numpy.float32).view(numpy.uint16)[1:]
    return numpy.array([value]).astype(ARRAYS[dtype])


def _new_memory(count):
    c, memory = simulator(), DeviceMemory()
    if c.bm_malloc_device_byte(c.handle, byref(memory), count) != 0:
        raise RuntimeError("no enough device memory")
    value = ctypes.c_uint8(GARBAGE)
    c.check("bm_memset_device_ext", c.handle, byref(value), 1, memory)
    return memory
