"""Looking after processes in tests: whether they live, and that they end with the test."""

import os
import signal
import time

import psutil

#: Seconds in which a process that was ended must be gone.
GONE_SECONDS = 10.0


def is_running(pid):
    """A zombie has ended; that nobody has asked for its exit status yet is not its fault."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds, what):
    """Return the condition's first true value; between processes there is no event to wait for."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


def wait_until_gone(pids, seconds=GONE_SECONDS):
    wait_for(lambda: not any(map(is_running, pids)), seconds, f"the end of the processes {sorted(pids)}")


def kill(pids):
    for pid in pids:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
