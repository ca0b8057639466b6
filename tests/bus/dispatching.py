"""What surrounds a dispatcher in a test: a line instead of the socket, workers' words, readers' ears."""

from bus import wire
from bus.assignment import Assignment
from contract import Cancel, Hello, Reply, Submit, Token
from tests.bus.house import CARD, chat


class Line:
    """Stands where the socket stands: keeps what was sent, and knows who cannot be reached."""

    def __init__(self) -> None:
        self.sent = []
        self.unreachable = set()

    def __call__(self, worker: bytes, message: bytes) -> bool:
        self.sent.append((worker, wire.decode_for_worker(message)))
        return worker not in self.unreachable

    def submits(self) -> list[bytes]:
        return [worker for worker, envelope in self.sent if isinstance(envelope, Submit)]

    def submitted(self) -> list[Submit]:
        return [envelope for _, envelope in self.sent if isinstance(envelope, Submit)]

    def cancels(self) -> list[tuple[bytes, str]]:
        return [(worker, each.task_id) for worker, each in self.sent if isinstance(each, Cancel)]


def hello(worker="a", **changes):
    return Hello(worker, CARD, ("chat",), changes.pop("capacity", 10), 0, **changes)


def given(dispatcher, task_id="t") -> Assignment:
    task = chat(task_id=task_id)
    assignment = Assignment(Submit(task))
    dispatcher.accept(assignment, 0.0)
    return assignment


def heard(assignment: Assignment) -> list:
    return [assignment.inbox.get_nowait() for _ in range(assignment.inbox.qsize())]


def codes(assignment: Assignment) -> list[str]:
    return [event.code for event in heard(assignment)]


def token(index: int, *ids: int) -> Reply:
    return Reply("t", Token(index, ids or (7,), "x"))


def lose(dispatcher, line, worker, now=1.0):
    """Let the next beat find the worker out of reach."""
    line.unreachable.add(worker)
    dispatcher.beat(now)


def told(line) -> list[tuple[tuple[int, ...], ...]]:
    """What each Submit said about an answer that was begun."""
    return [envelope.task.said for envelope in line.submitted()]
