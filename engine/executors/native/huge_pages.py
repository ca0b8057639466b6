"""Memory in large pages: weights are read from end to end in every step, and small pages slow that down.

It is there before torch is: see `HugePages`.
"""

import ctypes
import mmap
from threading import Event, Thread

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

#: Bytes of a large page on x86.
PAGE_BYTES = 2 << 20

#: Bytes that are asked from the system at a time. What is not used of them takes no memory.
ARENA_BYTES = 256 << 20

#: Bytes of a line of the processor's cache; vectors do not lie across two of them.
LINE_BYTES = 64

#: Bytes whose pages are made at a time ahead of use; whoever wants that to end waits for some 30 ms.
AHEAD_BYTES = 32 << 20


class HugePages:
    """Gives out memory, piece behind piece; a piece lives as long as its array.

    The pages of the first `expected_bytes` are made at once, by a thread: where the machine is a virtual
    one, a gigabyte takes a second, which passes while libraries are still being imported.
    """

    def __init__(self, expected_bytes: int = 0) -> None:
        self._free = _arena(expected_bytes)
        self._making = _PagesAhead(self._free)

    @property
    def made_bytes(self) -> int:
        """How many bytes have pages ahead of their use, or had them."""
        return self._making.made_bytes

    def take(self, size: int) -> Bytes:
        """Return `size` bytes of zeros, in large pages where the system has them.

        The first call ends the making of pages ahead, which zeroes what has not been given out.
        """
        self._making.stop()
        taken = -(-size // LINE_BYTES) * LINE_BYTES
        if taken > len(self._free):
            self.settle()
            self._free = _arena(max(taken, ARENA_BYTES))
        piece, self._free = self._free[:size], self._free[taken:]
        return piece

    def settle(self) -> None:
        """Give pages back that were made and not taken; what is taken from now on is made anew."""
        self._making.stop()
        _give_back(self._free)
        self._free = self._free[:0]


class _PagesAhead:
    def __init__(self, memory: Bytes) -> None:
        self.made_bytes = 0
        self._memory = memory
        self._stopping = Event()
        self._thread = Thread(target=self._make, name="pages", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _make(self) -> None:
        for begin in range(0, len(self._memory), AHEAD_BYTES):
            part = self._memory[begin : begin + AHEAD_BYTES]
            if self._stopping.is_set():
                return
            # ctypes frees Python's lock here. MADV_POPULATE_WRITE would hold the kernel's lock on this
            # process's memory, and imports would wait.
            ctypes.memset(part.ctypes.data, 0, len(part))
            self.made_bytes += len(part)


def _arena(size: int) -> Bytes:
    """Return zeros that begin with a page."""
    memory = mmap.mmap(-1, size + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    begin = -whole.ctypes.data % PAGE_BYTES
    return whole[begin : begin + size]


def _give_back(memory: Bytes) -> None:
    """Drop the whole pages among these; who looks at them again finds zeros."""
    pages = memory[-memory.ctypes.data % PAGE_BYTES :]
    if len(pages):
        address, size = ctypes.c_void_p(pages.ctypes.data), ctypes.c_size_t(len(pages))
        ctypes.CDLL(None).madvise(address, size, mmap.MADV_DONTNEED)
