"""Gateways and workers on real sockets in one process, for tests: everything started here is stopped here."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bus.client import BusClient
from bus.keys import BusKeys
from bus.service import BusService
from contract import Chat, ChatMessage, Event, Finished, ModelCard, Task, Token
from workers.loop import WorkerLoop

CARD = ModelCard(name="scripted", fingerprint="1", context_tokens=100)

#: Seconds within which anything that should happen on loopback has happened, also on a busy machine.
PATIENCE = 10.0


def chat(text: str = "hello", **changes) -> Task:
    return Task(name="chat", input=Chat((ChatMessage("user", text),)), **changes)


def echo(task: Task) -> Generator[Event, None, None]:
    """Say the prompt three times."""
    for index in range(3):
        yield Token(index, (index,), task.input.messages[0].content)
    yield Finished()


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class Endless:
    """A perform that goes on until it is closed; tells how many run, and how many were closed."""

    def __init__(self) -> None:
        self.running = 0
        self.closed = 0
        self._lock = threading.Lock()

    def __call__(self, task: Task) -> Generator[Event, None, None]:
        with self._lock:
            self.running += 1
        try:
            index = 0
            while True:
                yield Token(index, (index,), "…")
                index += 1
                time.sleep(0.002)
        finally:
            with self._lock:
                self.running -= 1
                self.closed += 1


class RunningWorker:
    """A worker loop in a thread."""

    def __init__(self, endpoints, perform, capacity, card, tasks, keys) -> None:
        self.service = BusService(endpoints, keys=keys)
        self.name = self.service.worker
        self.loop = WorkerLoop(self.service, card, tasks, perform, capacity)
        self._thread = threading.Thread(target=self.loop.run, name="worker-loop")
        self._thread.start()

    def stop(self, deadline_seconds: float = 0.0) -> None:
        self.loop.stop(deadline_seconds)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


class House:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason) -> None:
        self._stack.close()

    def gateway(self, endpoint: str | None = None, **options) -> BusClient:
        number = len(list(self._folder.glob("*.ipc")))
        client = BusClient(endpoint or f"ipc://{self._folder}/{number}.ipc", **options)
        self._stack.callback(client.stop)
        client.start()
        return client

    def worker(
        self,
        *gateways: BusClient,
        perform=echo,
        capacity: int = 1000,
        card: ModelCard = CARD,
        tasks=("chat",),
        keys: BusKeys | None = None,
    ) -> RunningWorker:
        """Start a worker, and wait until every gateway knows it."""
        worker = RunningWorker([each.endpoint for each in gateways], perform, capacity, card, tasks, keys)
        self._stack.callback(worker.stop)
        for gateway in gateways:
            eventually(lambda gateway=gateway: worker.name in {each.worker for each in gateway.workers()})
        return worker

    def bare_worker(self, gateway: BusClient) -> BusService:
        """A worker's end of the bus that the test speaks for itself."""
        service = BusService([gateway.endpoint])
        self._stack.callback(service.close)
        return service


class Reader:
    """Reads a task's events in a thread, as a request does."""

    def __init__(self, client: BusClient, task: Task) -> None:
        self.events: list[Event] = []
        self._thread = threading.Thread(target=self._read, args=(client, task))
        self._thread.start()

    def ending(self, seconds: float = PATIENCE) -> Event:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the task never ended"
        return self.events[-1]

    def _read(self, client: BusClient, task: Task) -> None:
        for event in client.submit(task):
            self.events.append(event)
