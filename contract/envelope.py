"""What travels between a gateway and a worker."""

from msgspec import Struct

from contract.event import Event
from contract.model import ModelCard
from contract.task import Task


class Submit(Struct, frozen=True, tag="submit"):
    """Gateway to worker: please do this."""

    task: Task


class Cancel(Struct, frozen=True, tag="cancel"):
    """Gateway to worker: nobody waits for this any more."""

    task_id: str


class Beat(Struct, frozen=True, tag="beat"):
    """Gateway to worker: I am here. The worker's next Hello says the number again."""

    number: int


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


ToWorker = Submit | Cancel | Beat
ToGateway = Hello | Goodbye | Reply | Refused
Envelope = ToWorker | ToGateway
