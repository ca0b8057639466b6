"""Work in a thread of its own, and the team of threads that must not outlive it."""

import subprocess
import sys
import threading

import pytest

from engine.loading.own_thread import in_own_thread

#: Prints how many threads the process has before, during and after a product in a thread of its own.
COUNT = """
import os
import time
import torch
from engine.loading.own_thread import in_own_thread

def threads():
    return len(os.listdir("/proc/self/task"))

def work():
    torch.set_num_threads(3)
    torch.randn(512, 512) @ torch.randn(512, 512)
    return threads()

torch.set_num_threads(3)
before = threads()
during = in_own_thread(work, "loading")
deadline = time.monotonic() + 10
while threads() > before and time.monotonic() < deadline:  # the system ends them a moment after Python's
    time.sleep(0.01)
print(before, during, threads())
"""


def test_the_result_comes_back_and_the_thread_is_gone():
    assert in_own_thread(lambda: threading.current_thread().name, "loading") == "loading"
    assert "loading" not in {thread.name for thread in threading.enumerate()}


def test_what_the_work_raises_is_raised_here():
    def work() -> None:
        raise KeyError("no such weight")

    with pytest.raises(KeyError, match="no such weight"):
        in_own_thread(work, "loading")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the threads of a process")
def test_the_operators_threads_end_with_it():
    command = [sys.executable, "-c", COUNT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    before, during, after = map(int, done.stdout.split())
    assert during > before + 1
    assert after == before
