"""A task on its way through the bus, as the gateway keeps it."""

import logging
import queue

from msgspec.structs import replace

from bus import wire
from bus.errors import WireError
from contract import (
    Event,
    Failed,
    Finished,
    Interrupt,
    ServingError,
    Submit,
    Token,
    Trimmed,
)

logger = logging.getLogger(__name__)

#: Events that may wait for one slow reader. A generous answer is 4,096 tokens; at some 200 bytes each
#: this bounds a reader at 3 MB.
INBOX_EVENTS = 16_384

#: Workers that may be lost while they hold one task: a task that kills them must not kill them all.
MOST_LOSSES = 2


class OutOfStep(WireError):
    """Tokens are missing between what was delivered and what came."""


class Assignment:
    """What is needed to serve the task's reader, and to go on with the task elsewhere.

    The bus client's thread owns it; the reader only takes from the inbox and sets `is_abandoned`. Raises
    WireError if the task cannot be written as a message.
    """

    def __init__(self, submit: Submit) -> None:
        self.task = submit.task  # with its seed, so that another worker draws the same tokens
        self.message = wire.encode(submit)
        self.worker: bytes | None = None
        self.fingerprint: str | None = None  # of the model that has begun the answer
        self.refused: set[bytes] = set()
        self.token_ids: dict[int, list[int]] = {}  # by choice
        self.started: float | None = None
        self.lost_at: float | None = None  # since when it has waited for another worker
        self.is_abandoned = False
        self.is_interrupted = False
        # Looked up by module, so that it is gevent's queue where gevent has patched the world.
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._submit = submit
        self._losses = 0
        self._was_trimmed = False
        self._rests: set[int] = set()  # choices whose text behind their last id was delivered
        self._earlier_rests: set[int] = set()  # those of them that a lost worker has sent

    @property
    def is_overfull(self) -> bool:
        return self.inbox.qsize() >= INBOX_EVENTS

    @property
    def has_begun(self) -> bool:
        """Whether the reader has seen something of the answer."""
        return self._was_trimmed or bool(self._rests) or any(self.token_ids.values())

    @property
    def can_go_on(self) -> bool:
        """Whether another worker can take it up: what was said must have ids."""
        return self._losses < MOST_LOSSES and all(self.token_ids.get(choice) for choice in self._rests)

    def lose_worker(self, now: float) -> None:
        """Be ready to be sent to another worker, with what was said so far."""
        self._losses += 1
        self._earlier_rests |= self._rests
        self.lost_at = now
        self.worker = None
        self.refused.clear()
        said = tuple(tuple(self.token_ids.get(choice, ())) for choice in range(self.task.sampling.choices))
        if any(said):
            self.message = wire.encode(replace(self._submit, task=replace(self.task, said=said)))

    def is_meant_by(self, interrupt: Interrupt) -> bool:
        return interrupt.is_about(self.task, self._submit.asked_at)

    def interrupted(self) -> Finished:
        """Return the ending of a task that is over with what it has said so far."""
        said_tokens = sum(map(len, self.token_ids.values()))
        return Finished.interrupted(self.task.sampling.choices, said_tokens)

    def is_news(self, event: Event) -> bool:
        """Note what the event tells; False if it was delivered before. Raises OutOfStep over a gap."""
        match event:
            case Token():
                return self._is_new_token(event)
            case Trimmed():
                is_new, self._was_trimmed = not self._was_trimmed, True
                return is_new
            case _:
                return True

    def _is_new_token(self, token: Token) -> bool:
        known = self.token_ids.setdefault(token.choice, [])
        delivered = len(known)
        if token.index + len(token.ids) <= delivered and token.index < delivered:
            return False
        if token.index != delivered:
            raise OutOfStep(f"token {token.index} came, {delivered} was next")
        known.extend(token.ids)
        if token.ids:
            return True
        self._rests.add(token.choice)
        return token.choice not in self._earlier_rests


def failure(task_id: str, error: ServingError) -> Failed:
    """Return the ending that tells of the error, and leave the one log line that every failure gets."""
    logger.info("Task %s failed: %s: %s", task_id, error.code, error)
    return Failed.from_error(error)
