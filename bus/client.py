"""The gateway's end of the bus: one thread owns the socket and the roster, requests reach it by mailbox."""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Generator

import msgspec

from bus import wire
from bus.assignment import Assignment, failure
from bus.dispatcher import Dispatcher
from bus.errors import BusError, MailboxClosed, MailboxFull, WireError
from bus.keys import BusKeys
from bus.mailbox import Mailbox
from bus.roster import Roster, WorkerStatus
from bus.router import Router
from contract import (
    Draining,
    Event,
    Failed,
    Finished,
    Interrupt,
    InvalidRequest,
    Overloaded,
    ServingError,
    Submit,
    Task,
    TookTooLong,
)

logger = logging.getLogger(__name__)

#: Seconds without any event after which a task is given up: a long prompt may take minutes to read in,
#: and a dead worker is found by its heartbeat, not by this.
PATIENCE_SECONDS = 600.0

#: Seconds of silence after which a reader is given None, so that it can look after its own client.
TICK_SECONDS = 1.0

#: Requests (a task, its reader's leaving, an interrupt) that may wait for the thread.
_MAILBOX_REQUESTS = 65_536

#: Seconds that a reader waits to leave a request, and that `stop` waits for the thread.
_HAND_OVER_SECONDS = 5.0

#: A seed that the client draws has as many bits as a seed may have.
_SEED_BITS = 63


class BusClient:
    """Binds one endpoint; workers dial it. `cooperative` is for a process that gevent has patched.

    The socket is bound here, so that a taken address fails in the caller: raises BusError. Create it
    after forking.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        keys: BusKeys | None = None,
        cooperative: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._requests: Mailbox[Assignment | Interrupt] = Mailbox(_MAILBOX_REQUESTS)
        try:
            self._router = Router(endpoint, keys, self._requests.fileno(), cooperative)
        except BusError:
            self._requests.close()
            raise
        self.endpoint = self._router.endpoint
        self._dispatcher = Dispatcher(Roster(), self._router.send)
        self._next_beat = 0.0
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="bus-client", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every outstanding task with Failed "draining" and close; a second call does nothing."""
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._thread is None:
            self._close()
            return
        self._requests.ring()
        self._thread.join(_HAND_OVER_SECONDS)
        if self._thread.is_alive():
            logger.error("The bus client's thread did not end within %.0f s", _HAND_OVER_SECONDS)

    def workers(self) -> tuple[WorkerStatus, ...]:
        """Return the workers as they were last heard; any thread may ask."""
        return self._dispatcher.statuses

    def submit(self, task: Task) -> Generator[Event | None, None, None]:
        """Yield the task's events: tokens, then exactly one Finished or Failed. Closing it cancels.

        Yields None after each second without an event.
        """
        try:
            assignment = _prepare(task)
            self._requests.put(assignment, _HAND_OVER_SECONDS)
        except BusError as error:
            yield failure(task.task_id, _as_serving_error(error))
            return
        has_ended = False
        give_up_at = time.monotonic() + self._patience_seconds
        try:
            while not has_ended:
                event = self._next_event(assignment, give_up_at)
                has_ended = isinstance(event, Finished | Failed)
                if event is not None:
                    give_up_at = time.monotonic() + self._patience_seconds
                yield event
        finally:
            if not has_ended:
                self._leave(assignment)

    def interrupt(self, caller: str, task_id: str | None = None) -> None:
        """End that caller's tasks, or the one named, with what they have said so far.

        Also those that came through other gateways. Raises Overloaded or Draining if it cannot be told.
        """
        try:
            self._requests.put(Interrupt(caller, task_id, time.time()), _HAND_OVER_SECONDS)
        except BusError as error:
            raise _as_serving_error(error) from error

    def _next_event(self, assignment: Assignment, give_up_at: float) -> Event | None:
        try:
            return assignment.inbox.get(timeout=min(TICK_SECONDS, self._patience_seconds))
        except queue.Empty:
            if time.monotonic() < give_up_at:
                return None
            self._leave(assignment)
            error = TookTooLong(f"the worker gave no sign of the task for {self._patience_seconds:g} s")
            return failure(assignment.task.task_id, error)

    def _leave(self, assignment: Assignment) -> None:
        assignment.is_abandoned = True
        try:
            self._requests.put(assignment, _HAND_OVER_SECONDS)
        except MailboxClosed:
            logger.debug("Task %s was cancelled when the bus closed", assignment.task.task_id)
        except MailboxFull:  # the mark is found when the task's next event comes
            logger.warning("Task %s could not be cancelled at once", assignment.task.task_id)

    # What follows runs in the client's own thread.

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._turn()
        except Exception:
            logger.exception("The bus client's thread died; every task fails from now on")
        finally:
            self._close()

    def _turn(self) -> None:
        self._router.wait(max(self._next_beat - time.monotonic(), 0.0))
        heard = self._router.receive()
        now = time.monotonic()
        for worker, envelope in heard:
            self._dispatcher.hear(worker, envelope, now)
        for request in self._requests.drain():
            if isinstance(request, Interrupt):
                self._dispatcher.interrupt(request, now)
            elif request.is_abandoned:
                self._dispatcher.abandon(request, now)
            else:
                self._dispatcher.accept(request, now)
        # The dead are counted only when nothing waits unread: a sign of life may lie in it.
        if now >= self._next_beat and self._router.is_drained:
            self._next_beat = now + wire.HEARTBEAT_SECONDS
            self._dispatcher.beat(now)
        time.sleep(0)  # under gevent this lets the readers read before more comes

    def _close(self) -> None:
        self._is_stopping = True
        for request in self._requests.close():
            if isinstance(request, Assignment):
                request.inbox.put(failure(request.task.task_id, _closed()))
        self._dispatcher.close(time.monotonic())
        self._router.close()


def _prepare(task: Task) -> Assignment:
    """Give the task its seed and write its message. Raises WireError."""
    if task.sampling.seed is None:
        sampling = msgspec.structs.replace(task.sampling, seed=secrets.randbits(_SEED_BITS))
        task = msgspec.structs.replace(task, sampling=sampling)
    return Assignment(Submit(task, time.time()))


def _closed() -> Draining:
    return Draining("the server is shutting down")


def _as_serving_error(error: BusError) -> ServingError:
    match error:
        case WireError():
            return InvalidRequest(str(error))
        case MailboxFull():
            return Overloaded("too many requests at once", retry_after_seconds=_HAND_OVER_SECONDS)
        case _:
            return _closed()
