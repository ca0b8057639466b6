"""The memory that libraries take from and give back to the system on the way of a load."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

#: Numbers of glibc's settings, from its malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

#: Bytes from which a piece has pages of its own while a model is loaded.
_LOADING_BYTES = 1 << 20

#: The same in a running server: the largest that glibc chooses by itself, so that a step's tensors reuse
#: memory.
_RUNNING_BYTES = 32 << 20


@contextmanager
def large_pieces_apart() -> Iterator[None]:
    """While this lasts, what is large goes back to the system as soon as it is freed.

    glibc raises by itself the size from which pieces have their own pages. Between weights that stay,
    the copies that were needed on the way would then leave holes that no later copy fits: some 40 MB
    for layers of 16 MB, differently in every run. Other libraries than glibc have no such setting,
    and nothing happens.
    """
    _set(_M_MMAP_THRESHOLD, _LOADING_BYTES)
    try:
        yield
    finally:
        _set(_M_MMAP_THRESHOLD, _RUNNING_BYTES)
        _set(_M_TRIM_THRESHOLD, 2 * _RUNNING_BYTES)
        trim_heap()


def trim_heap() -> None:
    """Return pages that nothing uses to the system.

    glibc keeps what was freed; between weights that stay, the copies that were needed on the way would
    add up to a second model, since its aligned allocations do not fit the holes they leave. Other
    libraries than glibc have no such function, and nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(setting: int, size: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(setting, size)
