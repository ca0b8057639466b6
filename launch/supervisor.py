"""Keeps a gateway and its workers alive, and ends with all of them."""

import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from launch.child import Child, Command
from launch.restart_policy import RestartPolicy

#: Longest wait for news in seconds; signals and output wake it earlier.
WAIT_SECONDS = 1.0

#: Seconds that processes get to finish their tasks when everything ends.
DRAIN_SECONDS = 20.0

#: Seconds that the kernel gets to end processes that were killed.
KILL_SECONDS = 5.0

#: Seconds in which requests to stop count as one.
SAME_REQUEST_SECONDS = 1.0

#: How those that die are started again, unless told otherwise.
POLICY = RestartPolicy()

#: What asks for an end: a service manager, Ctrl-C, a terminal that was closed.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """Starts the processes, starts again what dies, and leaves nothing behind.

    Without a gateway, or without any worker, nothing can be served: then it ends, too.
    """

    def __init__(
        self,
        gateway: Command,
        workers: Sequence[Command],
        say: Callable[[str], None],
        *,
        policy: RestartPolicy = POLICY,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._gateway = Child(gateway, policy, say)
        self._workers = [Child(worker, policy, say) for worker in workers]
        self._children = (self._gateway, *self._workers)
        self._say = say
        self._drain_seconds = drain_seconds
        self._selector = selectors.DefaultSelector()
        self._stops_asked = 0
        self._counts_again_at = 0.0

    def run(self) -> int:
        """Work until asked to stop (0) or until nothing can be served (1); for the main thread only."""
        with self._signals_heard():
            try:
                return self._keep_alive()
            finally:
                self._end_all()

    def _keep_alive(self) -> int:
        while not self._stops_asked:
            self._start_due()
            self._wait(WAIT_SECONDS)
            for child, status in self._bury_dead():
                child.plan_restart(time.monotonic(), status)
            if reason := self._hopeless():
                self._say(reason)
                return 1
        return 0

    def _start_due(self) -> None:
        for child in self._children:
            if child.starts_at is not None and child.starts_at <= time.monotonic():
                child.start(time.monotonic())
                self._selector.register(child.output, selectors.EVENT_READ, child)

    def _wait(self, seconds: float) -> None:
        """Wait for output, a death, a signal, the next start or the deadline, whichever comes first."""
        starts = [
            child.starts_at - time.monotonic() for child in self._children if child.starts_at is not None
        ]
        for key, _ in self._selector.select(max(0.0, min(seconds, WAIT_SECONDS, *starts))):
            if isinstance(key.data, Child):
                if not key.data.forward_output():
                    self._selector.unregister(key.fileobj)
            else:
                key.data()

    def _bury_dead(self) -> Iterator[tuple[Child, int]]:
        for child in self._children:
            if child.has_died():
                if child.output in self._selector.get_map():
                    self._selector.unregister(child.output)
                yield child, child.bury()

    def _hopeless(self) -> str | None:
        if self._gateway.has_given_up:
            return "nothing can be served without a gateway: ending"
        if all(worker.has_given_up for worker in self._workers):
            return "nothing can be served without a worker: ending"
        return None

    def _end_all(self) -> None:
        """Let every process finish what it does, for a while; a second request to stop ends the patience."""
        for child in self._children:
            child.starts_at = None
            child.terminate()
        self._wait_for_ends(self._drain_seconds, stops=2)
        self._kill_all()
        self._wait_for_ends(KILL_SECONDS)

    def _wait_for_ends(self, seconds: float, stops: int | None = None) -> None:
        """Wait until none runs, the time is over, or an end has been asked for `stops` times."""
        deadline = time.monotonic() + seconds
        while any(child.is_running for child in self._children):
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0 or (stops is not None and self._stops_asked >= stops):
                return
            self._wait(left_seconds)
            for child, status in self._bury_dead():
                self._say(f"{child.name} has ended" + (f" (exit status {status})" if status > 0 else ""))

    def _kill_all(self) -> None:
        for child in self._children:
            if child.is_running:
                self._say(f"{child.name} is killed: it did not end in time")
                child.kill()

    @contextmanager
    def _signals_heard(self) -> Iterator[None]:
        """Count the requests to stop, and let them and the deaths of children end a wait."""
        hears, rings = socket.socketpair()
        hears.setblocking(False)
        rings.setblocking(False)
        self._selector.register(hears, selectors.EVENT_READ, lambda: hears.recv(1024))
        before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGCHLD)}
        for number in STOP_SIGNALS:
            if before[number] is not signal.SIG_IGN:  # `nohup` ignores SIGHUP, and that is meant
                signal.signal(number, self._ask_to_stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        fd_before = signal.set_wakeup_fd(rings.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            hears.close()
            rings.close()

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        """Count a request; the same one often comes twice, from a terminal and from `make` or `timeout`."""
        now = time.monotonic()
        if now >= self._counts_again_at:
            self._stops_asked += 1
            self._counts_again_at = now + SAME_REQUEST_SECONDS
