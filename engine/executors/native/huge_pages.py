"""Memory in large pages: weights are read from end to end in every step, and small pages slow that down."""

import mmap

import torch

#: Bytes of a large page on x86.
PAGE_BYTES = 2 << 20

#: Bytes that are asked from the system at a time. What is not used of them takes no memory.
ARENA_BYTES = 256 << 20

#: Bytes of a line of the processor's cache; vectors do not lie across two of them.
LINE_BYTES = 64


class HugePages:
    """Gives out memory, piece behind piece; a piece lives as long as its tensor."""

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.uint8)

    def take(self, size: int) -> torch.Tensor:
        """Return `size` bytes of zeros, uint8, in large pages where the system has them."""
        taken = -(-size // LINE_BYTES) * LINE_BYTES
        if taken > len(self._free):
            self._free = _arena(max(taken, ARENA_BYTES))
        piece, self._free = self._free[:size], self._free[taken:]
        return piece


def _arena(size: int) -> torch.Tensor:
    """Return zeros that begin with a page."""
    memory = mmap.mmap(-1, size + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    begin = -whole.data_ptr() % PAGE_BYTES
    return whole[begin : begin + size]
