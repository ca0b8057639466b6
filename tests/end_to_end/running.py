"""A program of ours as a person would start it, with its output, its processes and its end."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import requests

from tests.processes import is_running, kill, wait_for, wait_until_gone

ROOT = Path(__file__).parents[2]

#: Seconds to start: a slow machine imports for seconds, and a worker that failed is started again.
START_SECONDS = 60.0

#: Seconds for an answer of a scripted model.
ANSWER_SECONDS = 30.0

#: Seconds in which everything must have ended: more than the gateway's and the supervisor's own patience.
END_SECONDS = 25.0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Running:
    """A program that was started; `processes` finds its children by what stands in their command line."""

    def __init__(self, program, arguments, folder, environ):
        self.folder = folder
        self._output = folder / f"{program}-{free_port()}.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / program), *arguments],
                cwd=folder,
                env={**os.environ, "TMPDIR": str(folder), **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._seen = {self.pid: None}  # parents before their children

    @property
    def output(self):
        return self._output.read_text(encoding="utf-8", errors="replace")

    def processes(self, words=""):
        """Return the ids of the living processes under it, itself included, oldest first."""
        try:
            process = psutil.Process(self.pid)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        self._seen |= dict.fromkeys(one.pid for one in family)
        return [one.pid for one in family if is_running(one.pid) and words in _command_line(one)]

    def send(self, number, *, whole_group=False):
        self.processes()  # remembered before they go
        if whole_group:
            os.killpg(self.pid, number)
        else:
            self._process.send_signal(number)

    def wait(self, seconds=END_SECONDS):
        """Return the exit status; fails unless it and all its processes are gone by then."""
        status = self._process.wait(seconds)
        wait_until_gone(self._seen)
        return status

    def stop(self, number=signal.SIGTERM, **options):
        self.send(number, **options)
        return self.wait()

    def end(self):
        """Leave nothing behind, however the test went; parents first, as they start again what dies."""
        self.processes()
        kill(self._seen)
        self._process.wait(END_SECONDS)
        wait_until_gone(self._seen)

    def socket_files(self):
        return sorted(path.name for path in self.folder.rglob("*.ipc"))


class Server(Running):
    """serveapi.py on a port of its own."""

    def __init__(self, arguments, folder, environ):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__("serveapi.py", ("--listen", f"127.0.0.1:{self.port}", *arguments), folder, environ)

    @property
    def gateway(self):
        """The process that the supervisor started; the oldest of its family."""
        return self.processes("--workers=0")[0]

    @property
    def gateway_processes(self):
        """Those that serve: all but the first, which only watches them."""
        return self.processes("--workers=0")[1:]

    @property
    def workers(self):
        return self.processes("LLMapis.py")

    def get(self, path):
        return requests.get(self.url + path, timeout=ANSWER_SECONDS)

    def is_ready(self):
        assert is_running(self.pid), self.output
        try:
            return self.get("/readyz").status_code == 200
        except requests.ConnectionError:
            return False

    def wait_ready(self):
        wait_for(self.is_ready, START_SECONDS, f"readiness; the server said:\n{self.output}")
        return self

    def post(self, task, body, **options):
        return requests.post(f"{self.url}/tasks/{task}", json=body, timeout=ANSWER_SECONDS, **options)

    def chat(self, **fields):
        return self.post("chat", chat_body(**fields))

    def stream(self, **fields):
        """Yield the events of a streamed chat as (name, data)."""
        body = chat_body(stream=True, **fields)
        with closing(self.post("chat", body, stream=True)) as response:
            assert response.status_code == 200, response.text
            name = None
            for line in response.iter_lines(chunk_size=1):
                if line.startswith(b"event: "):
                    name = line.removeprefix(b"event: ").decode()
                elif line.startswith(b"data: "):
                    yield name, json.loads(line.removeprefix(b"data: "))


def chat_body(**fields):
    return {"messages": [{"role": "user", "content": "hello"}], **fields}


def text_of(events):
    return "".join(data["text"] for name, data in events if name == "token")


def _command_line(process):
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
