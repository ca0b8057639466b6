"""Runs the gateway under gunicorn: N processes of greenlets, each with its own end of the bus."""

import logging
import multiprocessing
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gevent
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventWorker

from bus.client import BusClient
from bus.errors import BusError
from bus.keys import BusKeys
from gateway.app import STREAMS, create_app
from gateway.limits import Limits
from gateway.streaming import Bus

logger = logging.getLogger(__name__)

#: Seconds that streams may go on after SIGTERM before they end in Failed "draining".
FINISH_SECONDS = 15.0

#: Seconds after SIGTERM when a process that still lives is killed: time for the last words to go out.
GRACEFUL_SECONDS = 20

#: Seconds that an idle connection stays open; also how long an idle client can delay the end.
KEEP_ALIVE_SECONDS = 5

#: Seconds that a client may take none of our bytes, or send none of the body that it announced.
SOCKET_SECONDS = 60.0

#: Connections beside the streams of one process: the page, questions about health, refusals.
SPARE_CONNECTIONS = 256

#: Connections that may wait to be accepted.
BACKLOG = 1024

#: The highest port that TCP has.
MAX_PORT = 65_535

#: Open files for each connection, its share of the rest included.
FILES_PER_CONNECTION = 2


#: Signals that ask a process for its end.
END_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


class GatewayBus(Bus, Protocol):
    """A bus that one gateway process owns."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


def serve(binds: Sequence[str], bus_endpoints: Sequence[str], keys: BusKeys | None, limits: Limits) -> None:
    """Serve HTTP on every `HOST:PORT` of `binds`, with one process for each endpoint of the bus.

    Blocks until SIGTERM or SIGINT, then ends in SystemExit, in this process as in those that it
    forks; so call it last, with nothing around it that must run once only. Raises OSError, before
    anything was started, if an address cannot be listened on.
    """

    def open_bus(slot: int) -> GatewayBus:
        return BusClient(
            bus_endpoints[slot], keys=keys, cooperative=True, patience_seconds=limits.task_seconds
        )

    listeners = [listen(bind) for bind in binds]
    GatewayServer(listeners, len(bus_endpoints), open_bus, limits).run()


def listen(bind: str) -> socket.socket:
    """Return a socket that listens on `HOST:PORT`; port 0 takes a free one. Raises OSError."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not (host and port.isascii() and port.isdigit() and int(port) <= MAX_PORT):
        raise OSError(f"cannot listen on {bind}: must be HOST:PORT with a port up to {MAX_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {bind}: {error.strerror or error}") from error


class GatewayServer(BaseApplication):  # type: ignore[misc]
    """Gunicorn's configuration for us; in each forked process also its bus and its application."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        processes: int,
        open_bus: Callable[[int], GatewayBus],
        limits: Limits,
    ) -> None:
        self._addresses = [_url(listener) for listener in listeners]
        # Gunicorn takes the descriptors over and closes them.
        self._binds = [f"fd://{listener.detach()}" for listener in listeners]
        self._processes = processes
        self._open_bus = open_bus
        self._limits = limits
        self._bus: GatewayBus | None = None
        self._app: Flask | None = None
        super().__init__()

    def run(self) -> None:
        """Serve until a signal; ends in SystemExit."""
        _allow_open_files(FILES_PER_CONNECTION * (self._limits.streams + SPARE_CONNECTIONS))
        logger.info("Gateway listens on %s (processes: %d)", ", ".join(self._addresses), self._processes)
        GatewayArbiter(self).run()

    def load_config(self) -> None:
        """Called by gunicorn: tell it everything, as it must read no file and no command line."""
        settings = {
            "bind": self._binds,
            "workers": self._processes,
            "worker_class": GatewayWorker,
            "worker_connections": self._limits.streams + SPARE_CONNECTIONS,
            "graceful_timeout": GRACEFUL_SECONDS,
            "keepalive": KEEP_ALIVE_SECONDS,
            "logger_class": PlainLogger,
            "control_socket_disable": True,
            "proc_name": "lectern-gateway",
            "pre_fork": _give_slot,
            "post_fork": _take_name,
            "pre_request": _bound_waiting,
            "worker_exit": self._close,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def open(self, slot: int) -> None:
        """Called in a new process: open its end of the bus and build the application."""
        self._bus = self._open_bus(slot)
        self._bus.start()
        self._app = create_app(self._bus, self._limits)

    def load(self) -> Flask:
        """Called by gunicorn in a new process, after `open`."""
        assert self._app is not None
        return self._app

    def drain(self) -> None:
        """Take no new task, and end those that are not done in time."""
        if self._app is not None and self._bus is not None:
            self._app.extensions[STREAMS].drain()
            gevent.spawn_later(FINISH_SECONDS, self._bus.stop)

    def _close(self, arbiter: Arbiter, worker: "GatewayWorker") -> None:
        if self._bus is not None:
            self._bus.stop()


class GatewayArbiter(Arbiter):  # type: ignore[misc]
    """The parent: as many processes as there are endpoints, never more or fewer."""

    def spawn_worker(self) -> int:
        """Hold a request to end back until the forked process has handlers of its own: it would be lost."""
        signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        try:
            return int(super().spawn_worker())
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)

    def handle_hup(self) -> None:
        """The terminal is gone."""
        self.handle_term()

    def handle_ttin(self) -> None:
        logger.warning("The number of gateway processes cannot be changed while they run")

    handle_ttou = handle_usr2 = handle_ttin


class GatewayWorker(GeventWorker):  # type: ignore[misc]
    """A forked process. `slot` says which endpoint of the bus is its own."""

    slot: int

    def load_wsgi(self) -> None:
        try:
            self.app.open(self.slot)
        except BusError as error:
            logger.error("Gateway cannot start: %s", error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        super().load_wsgi()

    def init_signals(self) -> None:
        """Called by gunicorn in the new process: now it can hear."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)

    def handle_exit(self, signal_number: int, frame: Any) -> None:
        """SIGTERM."""
        super().handle_exit(signal_number, frame)
        gevent.spawn(self.app.drain)


class PlainLogger(Logger):  # type: ignore[misc]
    """Sends gunicorn's warnings wherever the program's own log lines go, and writes no access log."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Successes leave no line; failures leave theirs in gateway.failures."""


def _give_slot(arbiter: Arbiter, worker: GatewayWorker) -> None:
    """A process that takes the place of a dead one takes over its slot."""
    taken = {other.slot for other in arbiter.WORKERS.values()}
    worker.slot = min(set(range(arbiter.num_workers)) - taken)


def _take_name(arbiter: Arbiter, worker: GatewayWorker) -> None:
    multiprocessing.current_process().name = f"gateway-{worker.slot}"


def _bound_waiting(worker: GatewayWorker, request: Any) -> None:
    """A client that stops sending its body, or reading its stream, does not hold a greenlet for ever."""
    request.unreader.sock.settimeout(SOCKET_SECONDS)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _allow_open_files(needed: int) -> None:
    """Raise this process's own limit of open files as far as it needs and may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
