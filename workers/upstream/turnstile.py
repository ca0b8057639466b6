"""Lets callers through one at a time, in the order in which they came."""

import threading
from collections import deque

from contract import Overloaded

#: Seconds after which to come again to a full line: about one answer of a large model.
RETRY_SECONDS = 10.0


class Turnstile:
    """Who enters either waits for their turn or has it, and leaves in any case."""

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    def enter(self) -> object:
        """Return a ticket. Raises Overloaded if too many wait."""
        ticket = object()
        with self._changed:
            if len(self._line) > self._most_waiting:
                message = f"{len(self._line)} requests wait for an upstream that works on one at a time"
                raise Overloaded(message, retry_after_seconds=RETRY_SECONDS)
            self._line.append(ticket)
        return ticket

    def wait(self, ticket: object, seconds: float) -> bool:
        """Return whether it is this ticket's turn, waiting for it at most that long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._line[0] is ticket, seconds)

    def leave(self, ticket: object) -> None:
        with self._changed:
            self._line.remove(ticket)
            self._changed.notify_all()
