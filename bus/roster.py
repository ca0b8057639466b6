"""Who is alive, what they serve, and who gets the next task. Pure: time is an argument."""

import time
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass, field

from msgspec import Struct

from bus.wire import SILENCE_SECONDS
from contract import Hello, ModelCard, NoWorker, Overloaded, Speed, Task, UnknownModel, UnknownTask

#: Seconds for which a dead worker's model and tasks are remembered, so that "gone for now" differs
#: from "never heard of": a worker restarts and loads a model within that time.
MEMORY_SECONDS = 60.0

#: Seconds that a task is thought to take before the first one has ended.
FIRST_GUESS_SECONDS = 5.0

#: How much one task's duration moves the mean: about the last ten count.
_MEAN_SHARE = 0.1

#: Seconds between which a client is asked to come again.
RETRY_SECONDS = (1.0, 60.0)


class WorkerStatus(Struct, frozen=True):
    """A worker as this gateway sees it; `active` counts the tasks that it holds for all gateways."""

    worker: str
    model: ModelCard
    tasks: tuple[str, ...]
    capacity: int
    active: int
    is_leaving: bool
    speed: Speed = Speed()


class Greeting(Struct, frozen=True):
    """What a Hello told: our tasks that the worker lost, and tasks it holds that nobody waits for."""

    lost: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()


@dataclass(slots=True)
class Assigned:
    """A task at a worker: when it was given, and the last beat sent before."""

    since: float
    beat: int


@dataclass(slots=True)
class Seat:
    """A worker and the tasks it holds for this gateway; `turn` grows with every task it is given."""

    hello: Hello
    last_heard: float
    is_leaving: bool = False
    turn: int = 0
    assigned: dict[str, Assigned] = field(default_factory=dict)

    @property
    def active(self) -> int:
        """Tasks it holds: those of other gateways by its last word, ours by our own count."""
        return max(self.hello.active - len(self.hello.held), 0) + len(self.assigned)

    @property
    def is_full(self) -> bool:
        """Our own count alone decides: other gateways' tasks may have ended since the last word."""
        return len(self.assigned) >= self.hello.capacity


class Roster:
    """Workers are known by their routing id. `first_beat` should grow over restarts of the gateway."""

    def __init__(self, first_beat: int | None = None) -> None:
        self._seats: dict[bytes, Seat] = {}
        self._holders: dict[str, bytes] = {}
        self._remembered: dict[tuple[str, tuple[str, ...]], float] = {}
        self._beat = time.time_ns() if first_beat is None else first_beat
        self._turns = 0
        self._mean_seconds: float | None = None
        self._turned_away = 0

    @property
    def workers(self) -> tuple[bytes, ...]:
        return tuple(self._seats)

    def statuses(self) -> tuple[WorkerStatus, ...]:
        return tuple(
            WorkerStatus(
                worker=seat.hello.worker,
                model=seat.hello.model,
                tasks=seat.hello.tasks,
                capacity=seat.hello.capacity,
                active=seat.active,
                is_leaving=seat.is_leaving,
                speed=seat.hello.speed,
            )
            for seat in self._seats.values()
        )

    def next_beat(self) -> int:
        """Return the number of the beat that is about to be sent to every worker."""
        self._beat += 1
        return self._beat

    def greet(self, worker: bytes, hello: Hello, now: float) -> Greeting:
        """Note a worker's word. Another start of the process does not inherit the tasks of the one before."""
        seat = self._seats.get(worker)
        lost: tuple[str, ...] = ()
        if seat is not None and seat.hello.worker != hello.worker:
            lost, seat = self.lose(worker, now), None
        if seat is None:
            seat = self._seats[worker] = Seat(hello, now)
        seat.hello, seat.last_heard = hello, now
        held = set(hello.held)
        forgotten = [
            task_id
            for task_id, assigned in seat.assigned.items()
            if assigned.beat < hello.heard and task_id not in held
        ]
        for task_id in forgotten:
            self.release(task_id, now)
        return Greeting((*lost, *forgotten), tuple(held - seat.assigned.keys()))

    def farewell(self, worker: bytes) -> None:
        """Give it no new task; it still finishes those it holds."""
        if (seat := self._seats.get(worker)) is not None:
            seat.is_leaving = True

    def assign(
        self,
        task: Task,
        now: float,
        skipped: Set[bytes] = frozenset(),
        fingerprint: str | None = None,
        *,
        waits: bool = False,
    ) -> bytes:
        """Give the task to the least loaded worker that can do it and is not skipped.

        With a fingerprint, only workers with the model of that fingerprint can do it. One that `waits` is
        not turned away, however often it is tried.
        Raises UnknownModel, UnknownTask, NoWorker or Overloaded.
        """
        self._check_known(task)
        able = {
            worker: seat
            for worker, seat in self._seats.items()
            if _can_do(seat, task) and fingerprint in (None, seat.hello.model.fingerprint)
        }
        if not able:
            raise NoWorker(f"no worker for task {task.name!r} is connected at the moment")
        free = [worker for worker, seat in able.items() if worker not in skipped and not seat.is_full]
        if not free:
            raise self._overloaded(able.values(), turned_away=0 if waits else 1)
        worker = min(free, key=lambda each: (able[each].active / able[each].hello.capacity, able[each].turn))
        self._turns += 1
        able[worker].turn = self._turns
        able[worker].assigned[task.task_id] = Assigned(now, self._beat)
        self._holders[task.task_id] = worker
        return worker

    def holders_of(self, task_id: str) -> set[bytes]:
        """Return the workers that hold the task by their last word, whether or not it was given to them."""
        return {worker for worker, seat in self._seats.items() if task_id in seat.hello.held}

    def fingerprint(self, worker: bytes) -> str:
        """Return the fingerprint of the worker's model."""
        return self._seats[worker].hello.model.fingerprint

    def release(self, task_id: str, now: float) -> bytes | None:
        """The task is over or given back; return the worker that held it."""
        worker = self._holders.pop(task_id, None)
        if worker is not None:
            seconds = now - self._seats[worker].assigned.pop(task_id).since
            mean = self._mean_seconds
            self._mean_seconds = seconds if mean is None else mean + _MEAN_SHARE * (seconds - mean)
            self._turned_away = max(self._turned_away - 1, 0)
        return worker

    def take_back(self, task_id: str) -> None:
        """The worker refused the task: as if it had never been assigned."""
        worker = self._holders.pop(task_id, None)
        if worker is not None:
            del self._seats[worker].assigned[task_id]

    def lose(self, worker: bytes, now: float) -> tuple[str, ...]:
        """Forget a worker that cannot be reached; return the tasks that it held."""
        seat = self._seats.pop(worker, None)
        if seat is None:
            return ()
        for task_id in seat.assigned:
            del self._holders[task_id]
        self._remembered[seat.hello.model.name, seat.hello.tasks] = now
        return tuple(seat.assigned)

    def bury(self, now: float) -> tuple[str, ...]:
        """Forget the workers that have been silent for too long; return the tasks that they held."""
        self._remembered = {
            what: died for what, died in self._remembered.items() if now - died <= MEMORY_SECONDS
        }
        silent = [worker for worker, seat in self._seats.items() if now - seat.last_heard > SILENCE_SECONDS]
        return tuple(task_id for worker in silent for task_id in self.lose(worker, now))

    def _check_known(self, task: Task) -> None:
        known = [(seat.hello.model.name, seat.hello.tasks) for seat in self._seats.values()]
        known += self._remembered
        if not known:
            raise NoWorker("no worker is connected")
        if task.model is not None:
            models = {model for model, _ in known}
            if task.model not in models:
                raise UnknownModel(f"there is no model {task.model!r}; there is {_listed(models)}")
            known = [(model, tasks) for model, tasks in known if model == task.model]
        names = {name for _, tasks in known for name in tasks}
        if task.name not in names:
            raise UnknownTask(f"there is no task {task.name!r}; there is {_listed(names)}")

    def _overloaded(self, able: Collection[Seat], turned_away: int) -> Overloaded:
        """A place comes free every (mean duration / places); those turned away before come first.

        Nobody waits longer than a mean duration: by then every task held now has ended.
        """
        places = sum(seat.hello.capacity for seat in able)
        self._turned_away = min(self._turned_away + turned_away, places)
        mean = FIRST_GUESS_SECONDS if self._mean_seconds is None else self._mean_seconds
        shortest, longest = RETRY_SECONDS
        seconds = min(max(mean * self._turned_away / max(places, 1), shortest), longest)
        return Overloaded(f"all {len(able)} workers are full", retry_after_seconds=seconds)


def _can_do(seat: Seat, task: Task) -> bool:
    hello = seat.hello
    return not seat.is_leaving and task.name in hello.tasks and task.model in (None, hello.model.name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
