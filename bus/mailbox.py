"""A bounded queue that a poller can wait on: how other threads reach the thread that owns a socket."""

import os
import threading
import time
from contextlib import suppress
from typing import Generic, TypeVar

from bus.errors import MailboxClosed, MailboxFull

Item = TypeVar("Item")

#: Bytes read from the bell pipe at once: more than can lie in it, as it rings only for an empty box.
_BELL_BYTES = 4096


class Mailbox(Generic[Item]):
    """Any thread may put and ring; one thread, the owner, drains and closes."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: list[Item] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """Return the descriptor that is readable while something lies in the box."""
        return self._reader

    def put(self, item: Item, wait_seconds: float) -> None:
        """Leave the item, waiting for room at most that long. Raises MailboxFull or MailboxClosed."""
        with self._changed:
            if len(self._items) >= self._bound:
                self._wait_for_room(wait_seconds)
            if self._is_closed:
                raise MailboxClosed("nobody reads this mailbox any more")
            self._items.append(item)
            if len(self._items) == 1:
                self._ring()

    def ring(self) -> None:
        """Wake the owner without leaving anything; safe in a signal handler."""
        with self._changed:
            self._ring()

    def drain(self) -> list[Item]:
        """Take everything out, without waiting."""
        with suppress(BlockingIOError):
            os.read(self._reader, _BELL_BYTES)  # the bells first: an item put after this rings again
        with self._changed:
            items, self._items = self._items, []
            if len(items) >= self._bound:
                self._changed.notify_all()
        return items

    def close(self) -> list[Item]:
        """Take no more; return what lay in the box."""
        with self._changed:
            if self._is_closed:
                return []
            self._is_closed = True
            os.close(self._reader)
            os.close(self._writer)
            items, self._items = self._items, []
            self._changed.notify_all()
        return items

    def _wait_for_room(self, wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        while len(self._items) >= self._bound and not self._is_closed:
            if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                raise MailboxFull(f"no room in the mailbox for {wait_seconds:.0f} s")

    def _ring(self) -> None:
        if not self._is_closed:
            with suppress(BlockingIOError):  # a pipe full of bells wakes the owner too
                os.write(self._writer, b"!")
