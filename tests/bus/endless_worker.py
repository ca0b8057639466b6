"""A worker in a process of its own, to be killed or stopped: python -m tests.bus.endless_worker ENDPOINT."""

import signal
import sys

from bus.service import BusService
from tests.bus.house import CARD, Endless
from workers.loop import WorkerLoop

if __name__ == "__main__":
    loop = WorkerLoop(BusService(sys.argv[1:]), CARD, ("chat",), Endless(), 1000)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop(0.2))
    loop.run()
