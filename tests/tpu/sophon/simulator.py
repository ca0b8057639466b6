"""The vendor's runtime on its BM1684X simulator, as C: structures, functions and where the libraries lie."""

import ctypes
import os
import weakref
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_float, c_int, c_size_t, c_uint, c_void_p
from functools import cache
from pathlib import Path

from sophon.quiet import quiet_simulator

#: Where scripts/tpu_environment.sh lays the four libraries.
LIBRARIES = Path(__file__).parents[3] / "var" / "tpu" / "lib"

#: What is called, the second needs the first. The runtime opens libcpuop.so by itself.
CALLED = ("libbmlib.so.0", "libbmrt.so.1.0")


class DeviceMemory(Structure):
    """bm_device_mem_t."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("reserved", c_uint),
        ("file", c_int),
        ("flags", c_uint),
        ("size", c_uint),
    )


class Shape(Structure):
    """bm_shape_t."""

    _fields_ = (("count", c_int), ("dims", c_int * 8))

    @classmethod
    def of(cls, shape):
        return cls(len(shape), (c_int * 8)(*shape))

    def as_list(self):
        return list(self.dims[: self.count])


class LaunchTensor(Structure):
    """bm_tensor_t."""

    _fields_ = (("dtype", c_int), ("shape", Shape), ("memory", DeviceMemory), ("store_mode", c_int))


class Stage(Structure):
    """bm_stage_info_t."""

    _fields_ = (
        ("input_shapes", POINTER(Shape)),
        ("output_shapes", POINTER(Shape)),
        ("input_memories", POINTER(DeviceMemory)),
        ("output_memories", POINTER(DeviceMemory)),
    )


class Net(Structure):
    """bm_net_info_t."""

    _fields_ = (
        ("name", c_char_p),
        ("is_dynamic", c_bool),
        ("input_count", c_int),
        ("input_names", POINTER(c_char_p)),
        ("input_dtypes", POINTER(c_int)),
        ("input_scales", POINTER(c_float)),
        ("output_count", c_int),
        ("output_names", POINTER(c_char_p)),
        ("output_dtypes", POINTER(c_int)),
        ("output_scales", POINTER(c_float)),
        ("stage_count", c_int),
        ("stages", POINTER(Stage)),
        ("max_input_bytes", POINTER(c_size_t)),
        ("max_output_bytes", POINTER(c_size_t)),
        ("input_zero_points", POINTER(c_int)),
        ("output_zero_points", POINTER(c_int)),
        ("input_devices", POINTER(c_int)),
        ("output_devices", POINTER(c_int)),
        ("core_count", c_int),
        ("addr_mode", ctypes.c_int32),
    )


#: Result and arguments of each function that is called.
FUNCTIONS = {
    "bm_dev_request": (c_int, POINTER(c_void_p), c_int),
    "bm_dev_free": (None, c_void_p),
    "bm_malloc_device_byte": (c_int, c_void_p, POINTER(DeviceMemory), c_uint),
    "bm_free_device": (None, c_void_p, DeviceMemory),
    "bm_memset_device_ext": (c_int, c_void_p, c_void_p, c_int, DeviceMemory),
    "bm_memcpy_s2d_partial_offset": (c_int, c_void_p, DeviceMemory, c_void_p, c_uint, c_uint),
    "bm_memcpy_d2s_partial_offset": (c_int, c_void_p, c_void_p, DeviceMemory, c_uint, c_uint),
    "bm_memcpy_d2d_byte": (c_int, c_void_p, DeviceMemory, c_size_t, DeviceMemory, c_size_t, c_size_t),
    "bm_thread_sync": (c_int, c_void_p),
    "bmrt_create": (c_void_p, c_void_p),
    "bmrt_destroy": (None, c_void_p),
    "bmrt_load_bmodel": (c_bool, c_void_p, c_char_p),
    "bmrt_get_network_number": (c_int, c_void_p),
    "bmrt_get_network_names": (None, c_void_p, POINTER(POINTER(c_char_p))),
    "bmrt_get_network_info": (POINTER(Net), c_void_p, c_char_p),
    "bmrt_launch_tensor_ex": (
        c_bool,
        c_void_p,
        c_char_p,
        POINTER(LaunchTensor),
        c_int,
        POINTER(LaunchTensor),
        c_int,
        c_bool,
        c_bool,
    ),
}


class Simulator:
    """The libraries, loaded, and the one device that they simulate."""

    def __init__(self):
        _divert_noise()
        ctypes.CDLL(str(quiet_simulator(LIBRARIES)), mode=ctypes.RTLD_GLOBAL | os.RTLD_DEEPBIND)
        libraries = [ctypes.CDLL(str(LIBRARIES / name), mode=ctypes.RTLD_GLOBAL) for name in CALLED]
        for name, (result, *arguments) in FUNCTIONS.items():
            function = getattr(libraries[name.startswith("bmrt")], name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.handle = c_void_p()
        self.check("bm_dev_request", byref(self.handle), 0)
        # At the end of the process finalizers run newest first: the device goes after all that uses it.
        weakref.finalize(self, self.bm_dev_free, self.handle)

    def check(self, name, *arguments):
        """Call a function that returns 0 where all is well."""
        status = getattr(self, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} returned {status}")


@cache
def simulator():
    """Load it when it is first asked for: importing must cost nothing."""
    return Simulator()


def _divert_noise():
    """Give C a standard output of its own, that goes nowhere: the libraries print, Python has its own."""
    library = ctypes.CDLL(None)
    library.fopen.restype = c_void_p
    c_void_p.in_dll(library, "stdout").value = library.fopen(b"/dev/null", b"w")
