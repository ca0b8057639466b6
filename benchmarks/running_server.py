"""A server that is measured: started here, or already there under a URL."""

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from benchmarks.chat_client import ChatRefused, stream_chat
from benchmarks.peers.commands import ROOT, Body, ServerCommand, chat_body, openai_body
from benchmarks.process_tree import MemoryWatch, cpu_seconds, family
from engine.waiting_threads import VARIABLE

#: Seconds in which a server must answer for the first time; vLLM compiles for more than a minute.
START_SECONDS = 600

#: Seconds between two tries to get a first answer, and the longest that one try may take.
TRY_AGAIN_SECONDS = 0.1
FIRST_ANSWER_SECONDS = 120

#: Seconds that a server may take to end before it is killed.
END_SECONDS = 30


class DidNotStart(Exception):
    """The server ended, or did not answer in time; the message shows the end of its log."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class RemoteServer:
    """A server that somebody else started; nothing is known of its processes."""

    def __init__(self, url: str, model_name: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.name = self.url
        self.model_name = model_name or _first_model(self.url)
        self.chat_body: Callable[[Body], Body] = openai_body

    def facts(self) -> dict[str, Any]:
        """Return what the report says of it."""
        return {"name": self.name}

    def cpu_seconds(self) -> float:
        """Return its processor time, which is not known."""
        return 0.0

    def pause(self) -> None:
        """Leave it as it is: its processes are not ours."""

    def go_on(self) -> None:
        """It was never paused."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave it as it is."""


class OwnServer:
    """A server process of ours: started, waited for until it answers, watched, and ended with its family."""

    def __init__(self, command: ServerCommand, port: int, log: Path, environment: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.name = command.name
        self.model_name = command.model_name
        self.chat_body = command.chat_body
        self.start_seconds = 0.0
        self._command = command
        self._log = log
        # Each server's threads wait for each other as they do by themselves.
        own = {name: value for name, value in os.environ.items() if name != VARIABLE}
        self._environment = {**own, **command.environment, **environment}

    def __enter__(self) -> Self:
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command.arguments,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._memory = MemoryWatch(self._process.pid)
        self._memory.start()
        try:
            asyncio.run(self._first_answer())
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - started
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def process_id(self) -> int:
        """Of the process that was started; others may be below it."""
        return self._process.pid

    def facts(self) -> dict[str, Any]:
        """Return what the report says of it."""
        return {
            "name": self.name,
            "version": self._command.version,
            "command": " ".join(self._command.arguments).replace(f"{ROOT}/", ""),
            "environment": self._command.environment,
            "start_seconds": round(self.start_seconds, 2),
            "peak_mib": round(self._memory.peak_mib),
        }

    def cpu_seconds(self) -> float:
        """Return the processor time that it and its processes have used so far."""
        return cpu_seconds(self._process.pid)

    def pause(self) -> None:
        """Halt its processes: some servers keep a sixth of a core busy while nobody asks them anything."""
        for process in family(self._process.pid):
            process.suspend()

    def go_on(self) -> None:
        """End the pause."""
        for process in family(self._process.pid):
            process.resume()

    def stop(self) -> None:
        """Ask it to end, and kill what of its family is still there after that."""
        self._memory.stop()
        members = family(self._process.pid)
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        for process in members:
            if process.is_running():
                process.kill()
        self._process.wait(END_SECONDS)

    async def _first_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        # Greedy and whole, as what is measured: transformers keeps the sampling of the first request for all.
        body = self.chat_body(chat_body(self.model_name, "?", tokens=1))
        reason: Exception | None = None
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                await stream_chat(self.url, body, FIRST_ANSWER_SECONDS)
                return
            except (ChatRefused, OSError, asyncio.IncompleteReadError) as error:
                reason = error
                await asyncio.sleep(TRY_AGAIN_SECONDS)
        raise DidNotStart(f"{self.name} does not answer ({reason}); its log ends so:\n{self._last_words()}")

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


#: What is measured.
Server = RemoteServer | OwnServer


def _first_model(url: str) -> str:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=FIRST_ANSWER_SECONDS) as answer:
        return str(msgspec.json.decode(answer.read())["data"][0]["id"])
