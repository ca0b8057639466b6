"""Giving back memory that is free inside this process."""

import ctypes


def trim_heap() -> None:
    """Return pages that nothing uses to the system.

    glibc keeps what was freed; between weights that stay, the copies that were needed on the way would
    add up to a second model, since its aligned allocations do not fit the holes they leave. Other
    libraries than glibc have no such function, and nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
