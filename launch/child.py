"""One process that is kept alive: its command, its output, its deaths."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from launch.restart_policy import GiveUp, RestartPolicy

#: How many of its last lines are shown when a process dies.
LAST_LINES = 20

#: A line longer than this many bytes is forwarded in parts, so that memory stays bounded.
LINE_BYTES = 16_384

#: Bytes read from a child's output at once.
READ_BYTES = 65_536

#: Reads in a row from one child, so that one that never stops writing leaves time for the others.
BLOCKS_AT_ONCE = 16

_LEASH = str(Path(__file__).with_name("leash.py"))


@dataclass(frozen=True)
class Command:
    """What to run: a short name for people, the command line and the environment."""

    name: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str]


class Child:
    """A command that is started, watched and started again; owned by the supervisor's thread."""

    def __init__(self, command: Command, policy: RestartPolicy, say: Callable[[str], None]) -> None:
        self.name = command.name
        self.starts_at: float | None = 0.0
        self.has_given_up = False
        self._command = command
        self._policy = policy
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._quick_deaths = 0
        self._unfinished = b""
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def output(self) -> IO[bytes]:
        """The pipe that its output and errors come from; only while it runs."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    def start(self, now: float) -> None:
        """Start it in a session of its own: a Ctrl-C in the terminal reaches the supervisor alone."""
        leash = (sys.executable, "-I", _LEASH, str(os.getpid()))
        self._process = subprocess.Popen(
            (*leash, *self._command.arguments),
            env=dict(self._command.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.set_blocking(self.output.fileno(), False)
        self.starts_at, self._started_at = None, now
        self._unfinished = b""
        self._last_lines.clear()

    def terminate(self) -> None:
        """Ask it to finish what it does and end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, with every process that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def forward_output(self) -> bool:
        """Pass on what it wrote meanwhile; False when nothing can come any more."""
        for _ in range(BLOCKS_AT_ONCE):
            try:
                block = os.read(self.output.fileno(), READ_BYTES)
            except BlockingIOError:
                return True
            if not block:
                return False
            self._forward(block)
        return True

    def has_died(self) -> bool:
        """Whether it is dead and waits to be buried."""
        if self._process is None:
            return False
        state = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return state is not None

    def bury(self) -> int:
        """Take the exit status of one that died, after whatever it started has been ended, too."""
        assert self._process is not None
        self.kill()  # before the wait, as its number stays ours until then
        status = self._process.wait()
        self.forward_output()
        if self._unfinished:
            self._forward(b"\n")
        self.output.close()
        self._process = None
        return status

    def plan_restart(self, now: float, exit_status: int) -> None:
        """Say how it died, and decide when it starts again, if ever."""
        lived_seconds = now - self._started_at
        self._quick_deaths = self._policy.count(self._quick_deaths, lived_seconds)
        verdict = self._policy.judge(self._quick_deaths, exit_status)
        how = f"{self.name} {_manner_of_death(exit_status)} after {lived_seconds:.1f} s"
        if isinstance(verdict, GiveUp):
            self.has_given_up = True
            self._say(f"{how}; giving up: {verdict.reason}. Its last words:")
        else:
            self.starts_at = now + verdict.after_seconds
            self._say(f"{how}; it starts again in {verdict.after_seconds:g} s. Its last words:")
        for line in self._last_lines or ("(none)",):
            self._say(f"  | {line}")

    def _forward(self, block: bytes) -> None:
        *lines, self._unfinished = (self._unfinished + block).split(b"\n")
        while len(self._unfinished) > LINE_BYTES:
            lines.append(self._unfinished[:LINE_BYTES])
            self._unfinished = self._unfinished[LINE_BYTES:]
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            self._last_lines.append(text)
            self._say(f"[{self.name}] {text}")


def _manner_of_death(exit_status: int) -> str:
    if exit_status >= 0:
        return f"ended with exit status {exit_status}"
    try:
        return f"was killed by {signal.Signals(-exit_status).name}"
    except ValueError:
        return f"was killed by signal {-exit_status}"
