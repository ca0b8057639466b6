"""Becomes a command that ends when the process that started it ends, however that happens.

Run as a file: `python launch/leash.py PARENT_PID COMMAND…`. The kernel sends SIGTERM to the command when its
parent is gone, even if that was killed; the wish for it outlives exec, so the command knows nothing of it.
"""

import ctypes
import os
import signal
import sys

#: The number of that wish for Linux's prctl, see prctl(2).
PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refused a signal at the parent's death")
    if os.getppid() == parent:  # else it died before it could be watched
        os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
