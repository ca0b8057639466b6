"""A task on its way through the bus, as the gateway keeps it."""

import logging
import queue

from bus.errors import WireError
from contract import Event, Failed, ServingError, Task, Token

logger = logging.getLogger(__name__)

#: Events that may wait for one slow reader. A generous answer is 4,096 tokens; at some 200 bytes each
#: this bounds a reader at 3 MB.
INBOX_EVENTS = 16_384


class OutOfStep(WireError):
    """Tokens are missing between what was delivered and what came."""


class Assignment:
    """What is needed to serve the task's reader, and to go on with the task elsewhere.

    The bus client's thread owns it; the reader only takes from the inbox and sets `is_abandoned`.
    """

    def __init__(self, task: Task, message: bytes) -> None:
        self.task = task  # with its seed, so that another worker draws the same tokens
        self.message = message
        self.worker: bytes | None = None
        self.refused: set[bytes] = set()
        self.token_ids: dict[int, list[int]] = {}  # by choice
        self.started: float | None = None
        self.is_abandoned = False
        # Looked up by module, so that it is gevent's queue where gevent has patched the world.
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()

    @property
    def is_overfull(self) -> bool:
        return self.inbox.qsize() >= INBOX_EVENTS

    def is_news(self, token: Token) -> bool:
        """Note the token's ids; False if they were delivered before. Raises OutOfStep over a gap."""
        known = self.token_ids.setdefault(token.choice, [])
        delivered = len(known)
        if token.index + len(token.ids) <= delivered and token.index < delivered:
            return False
        if token.index != delivered:
            raise OutOfStep(f"token {token.index} came, {delivered} was next")
        known.extend(token.ids)
        return True


def failure(task_id: str, error: ServingError) -> Failed:
    """Return the ending that tells of the error, and leave the one log line that every failure gets."""
    logger.info("Task %s failed: %s: %s", task_id, error.code, error)
    return Failed.from_error(error)
