"""What travels between a gateway and a worker."""

import math

from msgspec import Struct

from contract.event import Event
from contract.model import ModelCard
from contract.task import Task


class Submit(Struct, frozen=True, tag="submit"):
    """Gateway to worker: please do this; `asked_at` is when it was asked for, in seconds since 1970."""

    task: Task
    asked_at: float = 0.0


class Cancel(Struct, frozen=True, tag="cancel"):
    """Gateway to worker: nobody waits for this any more."""

    task_id: str


class Interrupt(Struct, frozen=True, tag="interrupt"):
    """Gateway to worker: end that caller's tasks, or the one named, with what they have said so far.

    It holds for the tasks of all gateways that were asked for before `asked_at`, in seconds since 1970:
    what a caller asks for next may arrive first, through another gateway.
    """

    caller: str
    task_id: str | None = None
    asked_at: float = math.inf

    def is_about(self, task: Task, asked_at: float) -> bool:
        """Whether it ends this task, which was asked for then."""
        is_named = self.task_id in (None, task.task_id)
        return is_named and self.caller == task.caller and asked_at < self.asked_at


class Beat(Struct, frozen=True, tag="beat"):
    """Gateway to worker: I am here. The worker's next Hello says the number again."""

    number: int


class Speed(Struct, frozen=True):
    """What a worker has generated since it started, for all gateways.

    `first_tokens` came `first_token_seconds` after their tasks, all of these added up. `later_tokens`
    came after them, within `later_seconds`: the time in which at least one answer was under way.
    """

    first_tokens: int = 0
    first_token_seconds: float = 0.0
    later_tokens: int = 0
    later_seconds: float = 0.0


class Hello(Struct, frozen=True, tag="hello"):
    """Worker to gateway: I am here. Sent again as the heartbeat, with the true load.

    `worker` is another one for every start of the process. `capacity` is how many tasks it holds at
    most, running and waiting; `active` counts those it holds now, over all gateways; `tasks` names
    what it can do. `held` are this gateway's tasks among the active and `heard` is this gateway's
    last Beat: a task that was submitted before that Beat and is neither held nor ended was lost.
    """

    worker: str
    model: ModelCard
    tasks: tuple[str, ...]
    capacity: int
    active: int
    held: tuple[str, ...] = ()
    heard: int = 0
    speed: Speed = Speed()


class Goodbye(Struct, frozen=True, tag="goodbye"):
    """Worker to gateway: I take no new task; those I hold I still finish."""

    worker: str


class Reply(Struct, frozen=True, tag="reply"):
    """Worker to gateway: this happened to that task."""

    task_id: str
    event: Event


class Refused(Struct, frozen=True, tag="refused"):
    """Worker to gateway: my queue is full (or I am leaving), give that task to another."""

    task_id: str


ToWorker = Submit | Cancel | Interrupt | Beat
ToGateway = Hello | Goodbye | Reply | Refused
Envelope = ToWorker | ToGateway
