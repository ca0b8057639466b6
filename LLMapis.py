"""Starts one worker: settings -> templates, database, model -> bus -> worker loop; or a terminal chat."""

import gc
import logging
import multiprocessing
import os
import signal
import sqlite3
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from types import FrameType

import LLMkernel
from bus.errors import BusError
from bus.keys import read_keys
from bus.service import BusService
from contract import Chat, ChatMessage, Event, Model
from records import Database, embedded
from settings import LOG_FORMAT, SettingError, Settings, read_settings
from templates import BUILT_IN_TASKS, TaskFileError, load_tasks
from workers.errors import CannotLoad
from workers.loop import WorkerLoop
from workers.models import create_model
from workers.placement import Board, Placement
from workers.terminal import Terminal
from workers.upstream.reach import Reach

log = logging.getLogger("LLMapis")

#: Seconds that held tasks may take to finish after SIGTERM: less than the supervisor's patience.
DRAIN_SECONDS = 15.0


def main() -> int:
    """Serve, or chat, to the end; what can never start ends with exit status 78 and one line."""
    try:
        settings = read_settings("LLMapis", sys.argv[1:], os.environ)
        logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
        multiprocessing.current_process().name = f"worker-{settings.labels[0]}"
        if settings.chat:
            return chat_in_terminal(settings)
        model, loop = build_worker(settings)
    except (SettingError, TaskFileError, CannotLoad, BusError) as error:
        print(f"LLMapis: {error}", file=sys.stderr)
        return os.EX_CONFIG
    except KeyboardInterrupt:  # while the model was being loaded
        return 128 + signal.SIGINT
    stop_on_signals(loop)
    with closing(model):
        loop.run()
    return 0


def chat_in_terminal(settings: Settings) -> int:
    """Load the model and talk with the person at the terminal."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # what is no text in their encoding does not end a session
    if sys.stdin.isatty():
        import readline  # noqa: F401 (its import alone gives `input` its line editing)
    model = load_model(settings)

    def answer(messages: Sequence[ChatMessage]) -> Generator[Event, None, None]:
        return LLMkernel.chat(model, Chat(tuple(messages), drops_history=True), LLMkernel.USUAL)

    terminal = Terminal(answer, input, partial(print, end="", flush=True))
    signal.signal(signal.SIGINT, lambda number, frame: terminal.interrupt())
    with closing(model):
        terminal.run()
    return 0


def build_worker(settings: Settings) -> tuple[Model, WorkerLoop]:
    """Load everything, the model last, and only then dial the gateways."""
    keys = read_keys(settings.bus_key_file) if settings.bus_key_file else None
    templates = load_tasks(settings.templates)
    database = open_database(settings)
    model = load_model(settings)
    perform = partial(LLMkernel.perform, model=model, templates=templates, database=database)
    service = BusService(settings.dial_endpoints, keys=keys)
    tasks = (*sorted(BUILT_IN_TASKS), *sorted(templates))
    log.info("Model %s is loaded and serves %s", model.card.name, ", ".join(tasks))
    return model, WorkerLoop(service, model.card, tasks, perform, settings.capacity)


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Keep Python's collector off what lasts as long as the process: libraries, vocabulary, model.

    While it looks through a growing heap, a start takes a second longer; and later every full collection
    would look through all of it again, a third of a second in the middle of answers. What garbage there
    is by then, some thousand small objects, is kept with the rest.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@garbage_left_alone()
def load_model(settings: Settings) -> Model:
    """Return the one model that this process holds. Raises CannotLoad."""
    if settings.upstream:
        upstream = settings.upstream[0]
        return create_model(upstream.place, upstream.name, placement_of(settings), reach_of(settings))
    if settings.bmodel:
        board = Board(settings.token_config, settings.dev_id.groups[0])
        return create_model(settings.bmodel.path, settings.bmodel.name, placement_of(settings), board=board)
    named = settings.model[0]
    return create_model(named.path, named.name, placement_of(settings))


def placement_of(settings: Settings) -> Placement:
    return Placement(
        device=settings.device,
        threads=settings.threads,
        tier=settings.tier,
        executor=settings.executor,
        memory_bytes=None if settings.memory is None else settings.memory.size_bytes,
        context_tokens=settings.context_tokens,
        capacity=settings.capacity,
    )


def reach_of(settings: Settings) -> Reach:
    """Return how this worker's upstream is reached."""
    (upstream,) = settings.upstream
    return Reach(
        api_key=next(iter(settings.keys_of(upstream)), None),
        connect_seconds=settings.upstream_connect_seconds,
        first_token_seconds=settings.upstream_first_token_seconds,
        pause_seconds=settings.upstream_pause_seconds,
        context_tokens=settings.context_tokens,
    )


def open_database(settings: Settings) -> Database:
    """Return the database; the embedded one is made first. Raises SettingError."""
    if settings.has_default_database:
        path = Path(settings.database.removeprefix("sqlite:///"))
        try:
            embedded.ensure(path)
        except (OSError, sqlite3.Error) as error:
            raise SettingError(f"the catalogue {path} cannot be made: {error}") from error
    try:
        return Database(settings.database)
    except ValueError as error:
        raise SettingError(f"--{error}") from None


def stop_on_signals(loop: WorkerLoop) -> None:
    """Drain at the first SIGTERM or Ctrl-C, end at once at the second."""
    seconds = iter((DRAIN_SECONDS,))

    def stop(number: int, frame: FrameType | None) -> None:
        loop.stop(next(seconds, 0.0))

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


if __name__ == "__main__":
    sys.exit(main())
