"""A gateway process and a worker in this one, for tests that speak WebSocket to them; and raw frames."""

import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import requests

from bus.service import BusService
from LLMkernel import perform
from tests.processes import wait_for
from workers.loop import WorkerLoop

ROOT = Path(__file__).parents[2]

#: Seconds for anything that a test waits for: far above what it takes on a busy machine.
DEADLINE_SECONDS = 30

PROGRAM = """
import logging, sys
from gateway import Limits, places
from gateway.server import serve
logging.basicConfig(level=logging.INFO, format="%(message)s")
places.NO_WORKER_SECONDS = 2.0
keys = tuple(sys.argv[2:])
serve(["127.0.0.1:0"], sys.argv[1:2], None, Limits(body_bytes=100_000, task_seconds=60, api_keys=keys))
"""

#: The opcodes of RFC 6455.
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


class Gateway:
    """A real gateway on a free port; what it logs can be read after its end."""

    def __init__(self, folder, *keys):
        self.endpoint = f"ipc://{folder}/0.ipc"
        self._log = folder / "gateway.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, self.endpoint, *keys], cwd=ROOT, stderr=log
            )
        self.port = int(wait_for(self._announced, DEADLINE_SECONDS, "the gateway's address")[1])

    @property
    def log(self):
        return self._log.read_text(encoding="utf-8")

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/"

    def _announced(self):
        return re.search(r"listens on http://127.0.0.1:(\d+) ", self.log)

    def workers(self):
        try:
            shown = requests.get(f"http://127.0.0.1:{self.port}/workers", timeout=DEADLINE_SECONDS)
        except requests.ConnectionError:
            return []
        return shown.json()["workers"]

    def knows(self, name):
        return any(worker["worker"] == name for worker in self.workers())

    def await_active(self, condition):
        wait_for(
            lambda: any(condition(worker["active"]) for worker in self.workers()),
            DEADLINE_SECONDS,
            "the number of active tasks",
        )

    def end(self):
        self.process.terminate()
        try:
            return self.process.wait(DEADLINE_SECONDS)
        finally:
            self.process.kill()
            self.process.wait(DEADLINE_SECONDS)


@contextmanager
def gateway_in(folder, *keys):
    gateway = Gateway(folder, *keys)
    try:
        yield gateway
    finally:
        gateway.end()


@contextmanager
def worker_for(gateway, model, capacity=8):
    """Run a worker around the model in a thread, from when the gateway knows it until it is forgotten."""
    work = partial(perform, model=model, templates={}, database=None)
    service = BusService([gateway.endpoint])
    loop = WorkerLoop(service, model.card, ["chat"], work, capacity)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        wait_for(lambda: gateway.knows(service.worker), DEADLINE_SECONDS, "the worker")
        yield
    finally:
        loop.stop(0.0)
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
        wait_for(lambda: not gateway.knows(service.worker), DEADLINE_SECONDS, "the worker's end")


class RawClient:
    """Speaks WebSocket byte by byte."""

    def __init__(self, port, path="/", headers=""):
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
        self._unread = b""
        head = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        )
        self._socket.sendall(head.encode())
        self.handshake = self._read_head()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, opcode, payload=b"", *, is_last=True, is_masked=True):
        self.send_bytes(frame(opcode, payload, is_last=is_last, is_masked=is_masked))

    def send_bytes(self, data):
        self._socket.sendall(data)

    def receive(self):
        """Return the next frame's first byte and payload; the server masks nothing."""
        first, length = self._read(2)
        assert length < 0x80, "a server's frame is not masked"
        if length == 126:
            (length,) = struct.unpack("!H", self._read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._read(8))
        return first, self._read(length)

    def receive_text(self):
        first, payload = self.receive()
        assert first == 0x80 | TEXT
        return payload.decode()

    def is_at_end(self):
        return not self._unread and self._socket.recv(1) == b""

    def cut(self):
        """Leave without a word."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _read_head(self):
        while b"\r\n\r\n" not in self._unread:
            data = self._socket.recv(4096)
            assert data, self._unread
            self._unread += data
        head, self._unread = self._unread.split(b"\r\n\r\n", 1)
        return head.decode()

    def _read(self, count):
        while len(self._unread) < count:
            data = self._socket.recv(65536)
            assert data, "the connection ended in a frame"
            self._unread += data
        read, self._unread = self._unread[:count], self._unread[count:]
        return read


def frame(opcode, payload=b"", *, is_last=True, is_masked=True):
    """Return a client's frame as bytes."""
    mask = os.urandom(4) if is_masked else b""
    head = bytes([(0x80 if is_last else 0) | opcode])
    flag = 0x80 if is_masked else 0
    if len(payload) < 126:
        head += bytes([flag | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([flag | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([flag | 127]) + struct.pack("!Q", len(payload))
    if is_masked:
        payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return head + mask + payload


def patiently(condition):
    """Wait for something in another process."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
