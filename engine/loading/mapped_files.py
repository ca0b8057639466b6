"""Weights that are mapped from files: which they are, and giving their pages back once they are copied."""

import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path

import torch

#: Where Linux lists what is mapped in this process: "from-to permissions offset device inode path".
MAPS = Path("/proc/self/maps")


class MappedFiles:
    """Where in this process's memory some files are mapped, as it is at this moment.

    Without Linux's list nothing counts as mapped, and nothing is given back.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        names = {str(file.resolve()) for file in files}
        self._ranges = [(start, end) for start, end, name in _mappings() if name in names]

    def holds(self, tensor: torch.Tensor) -> bool:
        start = tensor.data_ptr()
        return any(low <= start < high for low, high in self._ranges)

    def give_back(self, tensor: torch.Tensor) -> None:
        """Drop the pages of a tensor that is mapped; who looks at it again reads the file again.

        Pages of other memory would lose what they hold, so a tensor that is not mapped is left alone.
        """
        if not self.holds(tensor):
            return
        start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        length = tensor.data_ptr() + tensor.nbytes - start
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def _mappings() -> Iterable[tuple[int, int, str]]:
    try:
        lines = MAPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6:
            start, end = (int(bound, 16) for bound in fields[0].split("-"))
            yield start, end, fields[5]
