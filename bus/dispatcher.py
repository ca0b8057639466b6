"""What the gateway's bus thread does with what it hears: tasks to workers, events to readers.

A task whose worker is lost goes on at another one, behind what its reader has seen. Nothing here
touches a socket or a clock: `send` is given to it and time is an argument.
"""

import logging
from collections.abc import Callable, Iterable

from bus import wire
from bus.assignment import INBOX_EVENTS, Assignment, OutOfStep, failure
from bus.roster import MEMORY_SECONDS, Roster, WorkerStatus
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
    TookTooLong,
    ToWorker,
    WorkerLost,
)

logger = logging.getLogger(__name__)


#: Seconds that a task waits for another worker like the one that was lost: one restarts and loads its
#: model within that time.
TAKE_UP_SECONDS = MEMORY_SECONDS


class Dispatcher:
    """Keeps every assignment from its acceptance to its one ending.

    `send(worker, message)` returns False when the worker cannot be reached; it has lost its tasks then.
    """

    def __init__(self, roster: Roster, send: Callable[[bytes, bytes], bool]) -> None:
        self.statuses: tuple[WorkerStatus, ...] = ()  # replaced as a whole: any thread may read it
        self._roster = roster
        self._send = send
        self._assignments: dict[str, Assignment] = {}
        self._waiting: dict[str, Assignment] = {}  # those that wait for another worker

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
        """Tell every worker: any of them may hold tasks of that caller, also through other gateways.

        Those that wait for a worker end here, and so do those whose worker turns out to be lost.
        """
        for assignment in self._assignments.values():
            assignment.is_interrupted |= assignment.is_meant_by(interrupt)
        for worker in self._roster.workers:
            self._tell(worker, interrupt, now)
        self._place_waiting(now)

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
                self._take_up(greeting.lost, now)
                for task_id in greeting.strays:
                    self._tell(worker, Cancel(task_id), now)
                self._place_waiting(now)
                self.statuses = self._roster.statuses()
            case Goodbye():
                self._roster.farewell(worker)
                self.statuses = self._roster.statuses()

    def beat(self, now: float) -> None:
        """Tell every worker that we live; whoever cannot be told, or has been silent, is dead."""
        beat = Beat(self._roster.next_beat())
        for worker in self._roster.workers:
            self._tell(worker, beat, now)
        self._take_up(self._roster.bury(now), now)
        self._place_waiting(now)
        self.statuses = self._roster.statuses()

    def close(self, now: float) -> None:
        """End every task."""
        self.statuses = ()
        for assignment in tuple(self._assignments.values()):
            self._fail(assignment, Draining("the server is shutting down"), now)

    def _place(self, assignment: Assignment, now: float) -> None:
        """Send the task to a worker; what nobody can take fails, or waits if it was taken up."""
        if assignment.is_interrupted:
            self._forget(assignment, now)
            assignment.inbox.put(assignment.interrupted())
            return
        try:
            self._send_to_best(assignment, now)
        except ServingError as error:
            self._cannot_place(assignment, error, now)

    def _send_to_best(self, assignment: Assignment, now: float) -> None:
        """Send the task to the first worker that can be reached, best first. Raises what `assign` raises.

        One that came back still speaks of its earlier run of the task: it is left out until it has let go.
        """
        fingerprint = assignment.fingerprint if assignment.has_begun else None
        skipped, waits = assignment.refused, assignment.lost_at is not None
        if waits:
            skipped = skipped | self._roster.holders_of(assignment.task.task_id)
        while True:
            worker = self._roster.assign(assignment.task, now, skipped, fingerprint, waits=waits)
            if self._send(worker, assignment.message):
                assignment.worker = worker
                assignment.fingerprint = self._roster.fingerprint(worker)
                return
            self._roster.take_back(assignment.task.task_id)
            self._lose(worker, now)

    def _cannot_place(self, assignment: Assignment, error: ServingError, now: float) -> None:
        """A new task fails; one that was taken up waits for a worker, for a while."""
        if assignment.lost_at is None:
            self._fail(assignment, error, now)
        elif now - assignment.lost_at < TAKE_UP_SECONDS:
            self._waiting[assignment.task.task_id] = assignment
        else:
            reason = f"no other took it up within {TAKE_UP_SECONDS:.0f} s"
            self._fail(assignment, WorkerLost(f"the worker was lost while it held the task; {reason}"), now)

    def _place_waiting(self, now: float) -> None:
        """Try again with those that wait for a worker."""
        waiting, self._waiting = self._waiting, {}
        for assignment in waiting.values():
            assignment.refused.clear()
            self._place(assignment, now)

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
        if isinstance(event, Failed) and event.code == Draining.code and self._moves_on(assignment, now):
            return
        if isinstance(event, Finished | Failed):
            self._forget(assignment, now)
            self._place_waiting(now)  # before a new task takes the place
            self.statuses = self._roster.statuses()  # whoever has read the ending sees the place free
            assignment.inbox.put(event)
            return
        try:
            if not assignment.is_news(event):
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

    def _moves_on(self, assignment: Assignment, now: float) -> bool:
        """Whether another worker takes what a leaving one could not finish; it does at once or not at all."""
        leaving = assignment.worker
        if leaving is None or assignment.is_interrupted or not assignment.can_go_on:
            return False
        self._roster.take_back(assignment.task.task_id)
        assignment.lose_worker(now)
        assignment.refused.add(leaving)  # its goodbye may come later
        try:
            self._send_to_best(assignment, now)
        except ServingError:
            return False
        logger.info("Task %s goes on elsewhere: its worker is leaving", assignment.task.task_id)
        return True

    def _tell(self, worker: bytes, envelope: ToWorker, now: float) -> None:
        if not self._send(worker, wire.encode(envelope)):
            self._lose(worker, now)

    def _lose(self, worker: bytes, now: float) -> None:
        self._take_up(self._roster.lose(worker, now), now)
        self.statuses = self._roster.statuses()

    def _take_up(self, task_ids: Iterable[str], now: float) -> None:
        """The worker of these tasks is lost: others go on with them where that can be."""
        for task_id in task_ids:
            assignment = self._assignments[task_id]
            assignment.worker = None
            if assignment.can_go_on:
                logger.info("Task %s goes on elsewhere: its worker was lost", task_id)
                assignment.lose_worker(now)
                self._place(assignment, now)
            else:
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
        self._waiting.pop(task_id, None)
        self._roster.release(task_id, now)
        return True
