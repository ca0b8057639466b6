"""The life of a worker: say hello, take tasks, answer, say goodbye.

The loop's own thread owns the sockets and the list of what is held; each task runs in a thread of its
own, which reaches the loop through the outbox only.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from bus.errors import MailboxClosed, MailboxFull, WireError
from bus.mailbox import Mailbox
from bus.service import BusService
from bus.wire import HEARTBEAT_SECONDS, SILENCE_SECONDS
from contract import (
    Beat,
    Cancel,
    Draining,
    Event,
    Failed,
    Finished,
    Goodbye,
    Hello,
    Interrupt,
    ModelCard,
    Refused,
    Reply,
    ServingError,
    Submit,
    Task,
    Token,
    ToWorker,
)
from workers.speedometer import Speedometer

logger = logging.getLogger(__name__)

#: Seconds that `stop` leaves the held tasks to finish, unless it is told otherwise.
DRAIN_SECONDS = 30.0

#: Events of all tasks that may wait for the loop's thread; then the tasks' threads wait.
_OUTBOX_EVENTS = 4096

#: Seconds that a task's thread waits for room in the outbox before its task fails: the loop hangs then.
_OUTBOX_WAIT_SECONDS = 30.0

#: Seconds between hellos to a gateway that is not connected, so that it knows us soon after it is.
_KNOCK_SECONDS = 0.1

#: Seconds that tasks cut off at the end of a drain have to let go of the model.
_CUT_OFF_SECONDS = 1.0

#: Seconds from one hello to the next while tasks end, so that a thousand endings a second do not make a
#: thousand hellos.
_FRESH_SECONDS = 0.05


@dataclass(slots=True, eq=False)
class Held:
    """A task that this worker holds, the gateway that wants it, and when it was asked for."""

    gateway: int
    task: Task
    asked_at: float = 0.0
    is_cancelled: bool = False
    is_interrupted: bool = False
    has_begun: bool = False
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True, frozen=True)
class Said:
    """What a task's thread says: an event, or None when its cancelled task let go of the model."""

    held: Held
    event: Event | None


@dataclass(slots=True)
class Line:
    """The connection to one gateway: its last beat, when it gave a sign of life, when to greet it next."""

    heard: int = 0
    heard_at: float = 0.0
    next_hello: float = 0.0
    last_hello: float = 0.0


class WorkerLoop:
    """Holds at most `capacity` tasks, running and waiting, and refuses more; runs `perform` for each.

    Whatever `perform` does, its task ends in exactly one Finished or Failed. A task that nobody waits
    for is stopped by closing its generator between two events, so a `perform` (and the model under it)
    must yield at least every step; with nothing to tell yet it yields a Token without ids and text,
    which stays here.
    """

    def __init__(
        self,
        service: BusService,
        card: ModelCard,
        tasks: Sequence[str],
        perform: Callable[[Task], Generator[Event, None, None]],
        capacity: int,
    ) -> None:
        self._service = service
        self._card = card
        self._tasks = tuple(tasks)
        self._perform = perform
        self._capacity = capacity
        self._lines = [Line() for _ in service.gateways]
        self._held: dict[tuple[int, str], Held] = {}
        self._outbox: Mailbox[Said] = Mailbox(_OUTBOX_EVENTS)
        self._speedometer = Speedometer()
        self._deadline: float | None = None
        self._has_said_goodbye = False

    def run(self) -> None:
        """Serve until `stop` was called and what is held has ended or the deadline has come."""
        self._service.watch(self._outbox.fileno())
        try:
            while not self._is_done():
                self._turn()
            self._cut_off()
        finally:
            self._outbox.close()
            self._service.close()

    def stop(self, deadline_seconds: float = DRAIN_SECONDS) -> None:
        """Take no new task, finish what is held within the deadline, then end `run`.

        Any thread may call it, also a signal handler; a second call sets another deadline.
        """
        self._deadline = time.monotonic() + deadline_seconds
        self._outbox.ring()

    def _is_done(self) -> bool:
        return self._deadline is not None and (not self._held or time.monotonic() >= self._deadline)

    def _turn(self) -> None:
        now = time.monotonic()
        is_goodbye_due = self._deadline is not None and not self._has_said_goodbye
        for gateway, line in enumerate(self._lines):
            if now >= line.next_hello or is_goodbye_due:
                self._greet(gateway, line, now)
        self._has_said_goodbye = self._has_said_goodbye or is_goodbye_due
        until = min(line.next_hello for line in self._lines)
        if self._deadline is not None:
            until = min(until, self._deadline)
        self._service.wait(max(until - now, 0.0))
        for gateway, envelope in self._service.receive():
            self._lines[gateway].heard_at = time.monotonic()
            self._hear(gateway, envelope)
        for said in self._outbox.drain():
            self._tell(said)

    def _greet(self, gateway: int, line: Line, now: float) -> None:
        """Say hello to a gateway; drop its tasks if it is gone."""
        is_there = self._service.send(gateway, self._hello(gateway, now))
        line.last_hello = now
        line.next_hello = now + (HEARTBEAT_SECONDS if is_there else _KNOCK_SECONDS)
        if not is_there or now - line.heard_at > SILENCE_SECONDS:
            self._drop_tasks(gateway)
        if self._deadline is not None:  # after every hello: a gateway that restarted has not heard it
            self._service.send(gateway, Goodbye(self._service.worker))

    def _hello(self, gateway: int, now: float) -> Hello:
        return Hello(
            worker=self._service.worker,
            model=self._card,
            tasks=self._tasks,
            capacity=self._capacity,
            active=len(self._held),
            held=tuple(task_id for holder, task_id in self._held if holder == gateway),
            heard=self._lines[gateway].heard,
            speed=self._speedometer.read(now),
        )

    def _hear(self, gateway: int, envelope: ToWorker) -> None:
        match envelope:
            case Submit(task, asked_at):
                self._take(gateway, task, asked_at)
            case Cancel(task_id):
                if (held := self._held.get((gateway, task_id))) is not None:
                    held.is_cancelled = True
            case Interrupt():
                self._interrupt(envelope)
            case Beat(number):
                self._lines[gateway].heard = number

    def _take(self, gateway: int, task: Task, asked_at: float) -> None:
        """Run the task in a thread of its own, or refuse it: full, leaving, or winding down under this id."""
        key = gateway, task.task_id
        if self._deadline is None and len(self._held) < self._capacity and key not in self._held:
            held = Held(gateway, task, asked_at)
            thread = threading.Thread(target=self._work, args=(held,), name=task.task_id, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                logger.warning("Task %s refused: %s", task.task_id, error)
            else:
                self._held[key] = held
                return
        self._service.send(gateway, Refused(task.task_id))

    def _interrupt(self, interrupt: Interrupt) -> None:
        for held in self._held.values():
            if interrupt.is_about(held.task, held.asked_at):
                held.is_interrupted = True

    def _tell(self, said: Said) -> None:
        """Send an event on; with the ending the place is free again."""
        held, event = said.held, said.event
        self._measure(held, event)
        if event is None or isinstance(event, Finished | Failed):
            del self._held[held.gateway, held.task.task_id]
        if event is None or held.is_cancelled:
            return
        reply = Reply(held.task.task_id, event)
        try:
            is_there = self._service.send(held.gateway, reply)
        except WireError as error:
            logger.error("Task %s failed: its event cannot be sent: %s", held.task.task_id, error)
            self._end_early(held, ServingError("internal error"))
            return
        if not is_there:
            self._drop_tasks(held.gateway)

    def _measure(self, held: Held, event: Event | None) -> None:
        """Count the event; an ending sends the counts ahead of itself, that of the last task always."""
        now = time.monotonic()
        match event:
            case Token(ids=ids) if ids and held.has_begun:
                self._speedometer.note_later(len(ids))
            case Token(ids=ids) if ids:
                held.has_begun = True
                self._speedometer.note_first(now - held.since, now)
                self._speedometer.note_later(len(ids) - 1)
            case None | Finished() | Failed() if held.has_begun:
                self._speedometer.note_end(now)
                line = self._lines[held.gateway]
                if len(self._held) == 1 or now - line.last_hello >= _FRESH_SECONDS:
                    line.last_hello = now
                    self._service.send(held.gateway, self._hello(held.gateway, now))

    def _drop_tasks(self, gateway: int) -> None:
        """The gateway is gone, and with it everybody who waited for its tasks."""
        dropped = [held for held in self._held.values() if held.gateway == gateway and not held.is_cancelled]
        for held in dropped:
            held.is_cancelled = True
        if dropped:
            logger.warning("Gateway %d is gone: cancelled its %d tasks", gateway, len(dropped))

    def _cut_off(self) -> None:
        """End what did not finish by the deadline, and give it a moment to let go of the model."""
        for held in self._held.values():
            if not held.is_cancelled:
                logger.warning("Task %s is cut off: the worker is shutting down", held.task.task_id)
                self._end_early(held, Draining("the worker is shutting down"))
        self._deadline = time.monotonic() + _CUT_OFF_SECONDS
        while not self._is_done():
            self._turn()

    def _end_early(self, held: Held, error: ServingError) -> None:
        held.is_cancelled = True
        self._service.send(held.gateway, Reply(held.task.task_id, Failed.from_error(error)))

    # What follows runs in the task's own thread.

    def _work(self, held: Held) -> None:
        ending: Finished | Failed | None
        try:
            ending = self._run_to_ending(held)
        except ServingError as error:
            logger.info("Task %s failed: %s: %s", held.task.task_id, error.code, error)
            ending = Failed.from_error(error)
        except (MailboxClosed, MailboxFull) as error:
            logger.error("Task %s cannot reach the loop: %s", held.task.task_id, error)
            ending = Failed.from_error(error)
        except (Exception, SystemExit) as error:
            logger.exception("Task %s failed", held.task.task_id)
            ending = Failed.from_error(ServingError(f"internal error ({type(error).__name__})"))
        try:
            self._say(held, ending)
        except (MailboxClosed, MailboxFull) as error:
            logger.warning("Task %s ended unheard: %s", held.task.task_id, error)

    def _run_to_ending(self, held: Held) -> Finished | Failed | None:
        """Send the task's tokens on, and return its ending, or None if it was cancelled.

        What was interrupted ends as if it had been done; its usage counts what was said.
        """
        said_tokens = 0
        with closing(self._perform(held.task)) as events:
            for event in events:
                if held.is_cancelled:
                    return None
                if isinstance(event, Finished | Failed):
                    return event
                if held.is_interrupted:
                    told_tokens = sum(map(len, held.task.said))
                    return Finished.interrupted(held.task.sampling.choices, max(said_tokens, told_tokens))
                if isinstance(event, Token):
                    said_tokens += len(event.ids)
                    if event.is_empty or _was_told(held.task, event):
                        continue
                self._say(held, event)
        if held.is_cancelled:
            return None
        raise RuntimeError("the task's generator ended without Finished or Failed")

    def _say(self, held: Held, event: Event | None) -> None:
        self._outbox.put(Said(held, event), _OUTBOX_WAIT_SECONDS)


def _was_told(task: Task, token: Token) -> bool:
    """Whether the task's reader has the token from a worker that was lost."""
    told = len(task.said[token.choice]) if token.choice < len(task.said) else 0
    return bool(token.ids) and token.index + len(token.ids) <= told
