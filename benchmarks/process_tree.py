"""What a server and all its processes use: memory at its peak, and processor time."""

import re
import time
from pathlib import Path
from threading import Event, Thread

import psutil

#: Seconds between two looks at the memory, or more: a look costs milliseconds for each process and each
#: gigabyte, and the system holds the process up meanwhile, so looks take this share of the time at most.
SAMPLE_SECONDS = 1.0
LOOKING_SHARE = 0.01

_KILOBYTES = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def family(pid: int) -> list[psutil.Process]:
    """Return the process and all below it that are alive."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_mib(pid: int) -> float:
    """Return the family's proportional memory: a page that n processes share counts 1/n for each."""
    return sum(_proportional_mib(process.pid) for process in family(pid))


def cpu_seconds(pid: int) -> float:
    """Return the processor time that the living processes of the family have used."""
    total = 0.0
    for process in family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _proportional_mib(pid: int) -> float:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0  # it ended while we looked
    match = _KILOBYTES.search(rollup)
    return int(match[1]) / 1024 if match else 0.0


class MemoryWatch:
    """Looks at a family's memory until it is stopped; `peak_mib` is the most that was seen."""

    def __init__(self, pid: int, sample_seconds: float = SAMPLE_SECONDS) -> None:
        self.peak_mib = 0.0
        self._pid = pid
        self._sample_seconds = sample_seconds
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="memory watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> float:
        """Look a last time and return the peak, in MiB."""
        self._stopping.set()
        self._thread.join()
        self._look()
        return self.peak_mib

    def _run(self) -> None:
        pause_seconds = self._sample_seconds
        while not self._stopping.wait(pause_seconds):
            began = time.monotonic()
            self._look()
            pause_seconds = max(self._sample_seconds, (time.monotonic() - began) / LOOKING_SHARE)

    def _look(self) -> None:
        self.peak_mib = max(self.peak_mib, memory_mib(self._pid))
