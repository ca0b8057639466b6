"""How much memory this process may still take: of the machine, of its control groups, of each GPU."""

from collections.abc import Iterator
from pathlib import Path

import psutil

#: For cgroup v1 and v2: the folder of the memory controller, its limits, what is used, and the line of
#: memory.stat that tells how much of it is page cache which the kernel gives back when it must.
_V1 = ("sys/fs/cgroup/memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("sys/fs/cgroup", ("memory.max", "memory.high"), "memory.current", "inactive_file")


def free_cpu_bytes(root: Path = Path("/")) -> int:
    """Return what is available on the machine, or less where a control group (a container) allows less.

    `root` is where /proc and /sys are found.
    """
    return max(0, min([psutil.virtual_memory().available, *_group_allowances(root)]))


def free_cuda_bytes() -> list[int]:
    """Return the free memory of each visible GPU, in torch's order."""
    import torch  # the rest of this file is asked before it is there

    return [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]


def _group_allowances(root: Path) -> Iterator[int]:
    """Yield what each group this process is in, and each group around it, has left."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield from _allowances(root, group, *_V2)
        elif "memory" in controllers.split(","):
            yield from _allowances(root, group, *_V1)


def _allowances(
    root: Path, group: str, controller: str, limits: tuple[str, ...], usage: str, reclaimable: str
) -> Iterator[int]:
    top = root / controller
    # Inside a container the named folder may not be there: what is mounted at the top is its own.
    folder = top / group.lstrip("/")
    for place in [folder, *folder.parents]:
        if not place.is_relative_to(top):
            return
        bounds = [bound for name in limits if (bound := _number(place / name)) is not None]
        used = _number(place / usage)
        if bounds and used is not None:
            yield min(bounds) - used + _statistic(place / "memory.stat", reclaimable)


def _number(file: Path) -> int | None:
    """Return the number in the file; None if there is no such file or it says `max`."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _statistic(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
