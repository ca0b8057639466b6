"""The workers' places, shared out among WebSocket connections: whoever has waited longest takes the next."""

import threading
import time
from collections import deque
from collections.abc import Callable

from gateway.streaming import Bus

#: One place in so many stays free of questions, so that an exam of thousands leaves others something.
SPARE_SHARE = 8

#: Seconds between two looks at what gives no sign: workers that come and go, other gateways' tasks.
LOOK_SECONDS = 0.25

#: Seconds for which questions wait for a worker where there is none: it may be loading its model.
NO_WORKER_SECONDS = 60.0

#: Questions at once that are told after that time that there is no worker.
NO_WORKER_PLACES = 16


class Places:
    """Hands out as many places as the workers have, in turn; each taker stands in the line once."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._taken = 0
        self._closed_until = 0.0
        self._missed_since: float | None = None

    @property
    def expects_worker(self) -> bool:
        """Whether a worker is there, or was missed first so lately that it may be about to come."""
        now = time.monotonic()
        if any(not worker.is_leaving for worker in self._bus.workers()):
            self._missed_since = None
            return True
        self._missed_since = self._missed_since or now
        return now - self._missed_since < NO_WORKER_SECONDS

    def take(self, gives_up: Callable[[], bool]) -> bool:
        """Wait for a place; False once the caller `gives_up`, which is asked every now and then."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                while not gives_up():
                    if self._line[0] is ticket and self._has_room():
                        self._taken += 1
                        return True
                    self._changed.wait(LOOK_SECONDS)
                return False
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def give_back(self) -> None:
        with self._changed:
            self._taken -= 1
            self._closed_until = 0.0
            self._changed.notify_all()

    def give_back_unused(self) -> None:
        """The workers were full after all: nobody tries for a moment, or until a place is given back."""
        with self._changed:
            self._taken -= 1
            self._closed_until = time.monotonic() + LOOK_SECONDS

    def _has_room(self) -> bool:
        return self._taken < self._places() and time.monotonic() >= self._closed_until

    def _places(self) -> int:
        if not self.expects_worker:
            return NO_WORKER_PLACES
        capacity = sum(worker.capacity for worker in self._bus.workers() if not worker.is_leaving)
        return capacity - capacity // SPARE_SHARE
