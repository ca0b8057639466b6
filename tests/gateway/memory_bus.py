"""A bus in memory: plays a script for each task, and counts those that nobody closed."""

import threading
from collections.abc import Callable, Generator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from contract import (
    Chat,
    Event,
    Failed,
    Finished,
    FoundRow,
    ModelCard,
    RowsAnswer,
    Speed,
    Task,
    Timings,
    Token,
    Tokenize,
    TokensAnswer,
    UnknownTask,
    Usage,
)

Script = Callable[[Task], Generator[Event | None, None, None]]

ROWS = (
    FoundRow(11, {"id": 11, "title": "微积分之旅：从初级到高级"}),
    FoundRow(14, {"id": 14, "title": "微积分的世界：函数与变化"}),
)
BOOKS_TEXT = '{"1": "微积分之旅：从初级到高级", "2": "微积分的世界：函数与变化"}'
USAGE = Usage(prompt_tokens=7, cached_tokens=2, completion_tokens=3, steps=4)
TIMINGS = Timings(first_token_seconds=0.5, total_seconds=1.5)


class Worker(Struct, frozen=True):
    """The fields of bus.roster.WorkerStatus."""

    worker: str = "memory"
    model: ModelCard = ModelCard("memory", "0", 1024)
    tasks: tuple[str, ...] = ("chat", "book_retrieval")
    capacity: int = 8
    active: int = 0
    is_leaving: bool = False
    speed: Speed = Speed()


class MemoryBus:
    """Has the methods of bus.client.BusClient; `script` says what becomes of each task."""

    def __init__(self, script: Script | None = None, workers: Sequence[Worker] = (Worker(),)) -> None:
        self.script = script or answer
        self.known_workers = tuple(workers)
        self.tasks: list[Task] = []
        self.interrupts: list[tuple[str, str | None]] = []
        self.active = 0
        self.is_stopped = threading.Event()

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.is_stopped.set()

    def submit(self, task: Task) -> Generator[Event | None, None, None]:
        self.tasks.append(task)
        self.active += 1
        try:
            yield from self.script(task)
        finally:
            self.active -= 1

    def interrupt(self, caller: str, task_id: str | None = None) -> None:
        self.interrupts.append((caller, task_id))

    def workers(self) -> tuple[Worker, ...]:
        return tuple(replace(each, active=self.active) for each in self.known_workers)


def answer(task: Task) -> Generator[Event | None, None, None]:
    """Say hello with an emoji whose bytes came in two tokens, or find two books."""
    if isinstance(task.input, Chat):
        for index, text in enumerate(("你好 ", "", "😀\n")):
            for choice in range(task.sampling.choices):
                yield Token(index, (index + 1,), text, choice)
        yield Finished(("stop",) * task.sampling.choices, USAGE, TIMINGS)
    elif isinstance(task.input, Tokenize):
        yield Finished(answer=TokensAnswer(tuple(task.input.text)))
    elif task.name == "book_retrieval":
        yield Token(0, (1, 2, 3), BOOKS_TEXT)
        yield Finished(("stop",), USAGE, TIMINGS, RowsAnswer(ROWS, 25))
    else:
        yield Failed.from_error(UnknownTask(f"there is no task {task.name!r}"))


def fail_with(error: Exception, after: int = 0) -> Script:
    """Return a script that sends some tokens and then fails."""

    def script(task: Task) -> Generator[Event | None, None, None]:
        for index in range(after):
            yield Token(index, (index,), "x")
        yield Failed.from_error(error)

    return script


def wait_for_ever(task: Task) -> Generator[Event | None, None, None]:
    """Never say anything, as a task in a long queue does."""
    patience = threading.Event()
    while True:
        patience.wait(0.02)
        yield None
