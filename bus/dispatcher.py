"""What the gateway's bus thread does with what it hears: tasks to workers, events to readers.

It touches no socket and no clock: `send` is given to it and time is an argument.
"""

from collections.abc import Callable, Iterable

from bus import wire
from bus.assignment import INBOX_EVENTS, Assignment, OutOfStep, failure
from bus.roster import Roster, WorkerStatus
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
    InvalidRequest,
    Refused,
    Reply,
    ServingError,
    ToGateway,
    Token,
    TookTooLong,
    ToWorker,
    WorkerLost,
)


class Dispatcher:
    """Keeps every assignment from its acceptance to its one ending.

    `send(worker, message)` returns False when the worker cannot be reached; it has lost its tasks then.
    """

    def __init__(self, roster: Roster, send: Callable[[bytes, bytes], bool]) -> None:
        self.statuses: tuple[WorkerStatus, ...] = ()  # replaced as a whole: any thread may read it
        self._roster = roster
        self._send = send
        self._assignments: dict[str, Assignment] = {}

    def accept(self, assignment: Assignment, now: float) -> None:
        """Find a worker for a new task."""
        task_id = assignment.task.task_id
        if task_id in self._assignments:
            assignment.inbox.put(failure(task_id, InvalidRequest(f"task_id {task_id!r} is in use")))
            return
        self._assignments[task_id] = assignment
        assignment.started = now
        self._place(assignment, now)

    def abandon(self, assignment: Assignment, now: float) -> None:
        """Nobody reads the task's events any more: stop it wherever it is."""
        if self._forget(assignment, now) and assignment.worker is not None:
            self._tell(assignment.worker, Cancel(assignment.task.task_id), now)

    def interrupt(self, interrupt: Interrupt, now: float) -> None:
        """Tell every worker: any of them may hold tasks of that caller, also through other gateways."""
        for worker in self._roster.workers:
            self._tell(worker, interrupt, now)

    def hear(self, worker: bytes, envelope: ToGateway, now: float) -> None:
        match envelope:
            case Reply(task_id, event):
                if (assignment := self._held_by(worker, task_id)) is not None:
                    self._deliver(assignment, event, now)
            case Refused(task_id):
                if (assignment := self._held_by(worker, task_id)) is not None:
                    self._pass_on(assignment, worker, now)
            case Hello():
                greeting = self._roster.greet(worker, envelope, now)
                self._fail_lost(greeting.lost, now)
                for task_id in greeting.strays:
                    self._tell(worker, Cancel(task_id), now)
                self.statuses = self._roster.statuses()
            case Goodbye():
                self._roster.farewell(worker)
                self.statuses = self._roster.statuses()

    def beat(self, now: float) -> None:
        """Tell every worker that we live; whoever cannot be told, or has been silent, is dead."""
        beat = Beat(self._roster.next_beat())
        for worker in self._roster.workers:
            self._tell(worker, beat, now)
        self._fail_lost(self._roster.bury(now), now)
        self.statuses = self._roster.statuses()

    def close(self, now: float) -> None:
        """End every task."""
        self.statuses = ()
        for assignment in tuple(self._assignments.values()):
            self._fail(assignment, Draining("the server is shutting down"), now)

    def _place(self, assignment: Assignment, now: float) -> None:
        """Send the task to the first worker that can be reached, best first."""
        while True:
            try:
                worker = self._roster.assign(assignment.task, now, assignment.refused)
            except ServingError as error:
                self._fail(assignment, error, now)
                return
            if self._send(worker, assignment.message):
                assignment.worker = worker
                return
            self._roster.take_back(assignment.task.task_id)
            self._lose(worker, now)

    def _pass_on(self, assignment: Assignment, worker: bytes, now: float) -> None:
        """The worker refused the task: try the next."""
        self._roster.take_back(assignment.task.task_id)
        assignment.refused.add(worker)
        assignment.worker = None
        self._place(assignment, now)

    def _held_by(self, worker: bytes, task_id: str) -> Assignment | None:
        """Return the task if that worker may speak about it: a late word after an ending is nobody's."""
        assignment = self._assignments.get(task_id)
        return assignment if assignment is not None and assignment.worker == worker else None

    def _deliver(self, assignment: Assignment, event: Event, now: float) -> None:
        if isinstance(event, Finished | Failed):
            self._forget(assignment, now)
            self.statuses = self._roster.statuses()  # whoever has read the ending sees the place free
            assignment.inbox.put(event)
            return
        try:
            if isinstance(event, Token) and not assignment.is_news(event):
                return
        except OutOfStep as error:
            self._fail(assignment, WorkerLost(f"tokens were lost: {error}"), now)
            return
        if assignment.is_abandoned:
            self.abandon(assignment, now)
        elif assignment.is_overfull:
            self._fail(assignment, TookTooLong(f"the reader is {INBOX_EVENTS} events behind"), now)
        else:
            assignment.inbox.put(event)

    def _tell(self, worker: bytes, envelope: ToWorker, now: float) -> None:
        if not self._send(worker, wire.encode(envelope)):
            self._lose(worker, now)

    def _lose(self, worker: bytes, now: float) -> None:
        self._fail_lost(self._roster.lose(worker, now), now)
        self.statuses = self._roster.statuses()

    def _fail_lost(self, task_ids: Iterable[str], now: float) -> None:
        for task_id in task_ids:
            assignment = self._assignments[task_id]
            assignment.worker = None
            self._fail(assignment, WorkerLost("the worker was lost while it held the task"), now)

    def _fail(self, assignment: Assignment, error: ServingError, now: float) -> None:
        """End the task from here, whatever its worker does."""
        self.abandon(assignment, now)
        assignment.inbox.put(failure(assignment.task.task_id, error))

    def _forget(self, assignment: Assignment, now: float) -> bool:
        """Drop the task; False if it had been dropped before."""
        task_id = assignment.task.task_id
        if self._assignments.get(task_id) is not assignment:
            return False
        del self._assignments[task_id]
        self._roster.release(task_id, now)
        return True
