"""Runs tasks on the bus: the first event decides the status, the rest is the stream."""

import logging
import threading
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol, Self

from contract import (
    Draining,
    Event,
    Failed,
    Finished,
    Overloaded,
    ServingError,
    Task,
    Token,
    TookTooLong,
)
from gateway.disconnect import Client
from gateway.limits import Limits
from gateway.turn import Turn, join_turns

if TYPE_CHECKING:
    from bus.roster import WorkerStatus

logger = logging.getLogger(__name__)

#: Seconds between two looks at clock and client: soon enough to free a worker, rare enough to cost nothing.
LOOK_SECONDS = 1.0


class Bus(Protocol):
    """What a gateway needs of bus.client.BusClient."""

    def submit(self, task: Task) -> Generator[Event | None, None, None]:
        """Run a task; yields None when nothing happened for about a second; closing cancels."""
        ...

    def interrupt(self, caller: str, task_id: str | None = None) -> None:
        """End that caller's tasks, or the one named, over all gateways; their streams end as if done."""
        ...

    def workers(self) -> "tuple[WorkerStatus, ...]": ...


class TaskFailed(Exception):
    """A task ended in Failed before anything of it was sent."""

    def __init__(self, failed: Failed, task_id: str) -> None:
        super().__init__(failed.code)
        self.failed = failed
        self.task_id = task_id


class ClientGone(Exception):
    """Nobody is there any more to answer to."""

    def __init__(self, task_id: str) -> None:
        super().__init__("the client hung up")
        self.task_id = task_id


class Stream:
    """One task under way, begun by Streams; whoever holds it closes it."""

    def __init__(self, owner: "Streams", task: Task, client: Client) -> None:
        self.task = task
        self._owner = owner
        self._client = client
        self._events = owner.bus.submit(task)
        self._deadline = time.monotonic() + owner.limits.task_seconds
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._first: Event | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def await_first(self) -> None:
        """Wait for the first event; raises what went wrong instead, while a status can still say so."""
        while self._first is None:
            self._first = self._step()
        if isinstance(self._first, Failed):
            raise TaskFailed(self._first, self.task.task_id)

    def events(self) -> Generator[Event | None, None, None]:
        """Yield each event, None now and for each second without one; ends after one Finished or Failed."""
        event = self._first
        while True:
            yield event
            if isinstance(event, Finished | Failed):
                return
            event = self._next_or_failed()

    def collect(self) -> tuple[tuple[Turn, ...], Finished]:
        """Return what each choice says as a whole, and how they ended."""
        tokens: list[Token] = []
        for event in self.events():
            match event:
                case Token():
                    tokens.append(event)
                case Finished():
                    return join_turns(tokens, len(event.reasons)), event
                case Failed():
                    raise TaskFailed(event, self.task.task_id)
        raise AssertionError("a stream ended without an ending")

    def close(self) -> None:
        """Cancel the task if it still runs, and make room for another; a second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._events.close()
            self._owner.release()

    def _next_or_failed(self) -> Event | None:
        """Once something was sent, only an event can still tell what went wrong."""
        try:
            return self._step()
        except ClientGone:
            raise
        except Exception as error:
            if not isinstance(error, ServingError):
                logger.exception("internal error in task %s", self.task.task_id)
            return Failed.from_error(error)

    def _step(self) -> Event | None:
        try:
            event = next(self._events)
        except StopIteration as end:
            raise RuntimeError("the bus ended a task without Finished or Failed") from end
        is_due = event is None or time.monotonic() >= self._next_look
        if is_due and not isinstance(event, Finished | Failed):
            self._look()
        return event

    def _look(self) -> None:
        now = time.monotonic()
        self._next_look = now + LOOK_SECONDS
        if self._client.is_gone:
            raise ClientGone(self.task.task_id)
        if now >= self._deadline:
            raise TookTooLong(f"the task took longer than {self._owner.limits.task_seconds:g} seconds")


class Streams:
    """The tasks that one gateway process has under way, at most `limits.streams` of them."""

    def __init__(self, bus: Bus, limits: Limits) -> None:
        self.bus = bus
        self.limits = limits
        self.is_draining = False
        self._open = 0
        self._lock = threading.Lock()

    def open(self, task: Task, client: Client) -> Stream:
        """Submit a task and return its stream once the first event is there."""
        stream = self.begin(task, client)
        try:
            stream.await_first()
        except BaseException:
            stream.close()
            raise
        return stream

    def begin(self, task: Task, client: Client) -> Stream:
        """Submit a task and return its stream at once: whatever goes wrong with it comes as its Failed."""
        self._take()
        try:
            return Stream(self, task, client)
        except BaseException:
            self.release()
            raise

    def drain(self) -> None:
        """Take no new task; those under way go on."""
        self.is_draining = True

    def release(self) -> None:
        with self._lock:
            self._open -= 1

    def _take(self) -> None:
        if self.is_draining:
            raise Draining("the server is shutting down and takes no new task")
        with self._lock:
            if self._open >= self.limits.streams:
                raise Overloaded(f"the gateway has {self._open} tasks under way, its limit")
            self._open += 1
