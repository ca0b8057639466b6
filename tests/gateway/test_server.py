import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.server import listen

ROOT = Path(__file__).parents[2]

#: Seconds for anything that a test waits for: far above what it takes on a busy machine.
DEADLINE_SECONDS = 20


class RunningGateway:
    """A gateway in processes of its own, started by serve_memory_bus.py."""

    def __init__(self, processes=1, finish_seconds=0.3):
        command = [
            sys.executable,
            "-m",
            "tests.gateway.serve_memory_bus",
            str(processes),
            str(finish_seconds),
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.ports = [int(port) for port in self.process.stdout.readline().split()]
        self.slots = dict(self.read_slot() for _ in range(processes))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.end()

    def read_slot(self):
        _, slot, _, pid = self.process.stdout.readline().split()
        return int(slot), int(pid)

    def end(self):
        """Wait for the end and return what it wrote to the log."""
        try:
            return self.process.communicate(timeout=DEADLINE_SECONDS)[1]
        finally:
            self.process.kill()

    def connect(self, port=0):
        return http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=DEADLINE_SECONDS)

    def ask(self, method, path, body=None, headers=None, port=0):
        connection = self.connect(port)
        try:
            connection.request(method, path, body, headers or {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def send_chat(self, text, wants_stream=False):
        connection = self.connect()
        body = {"messages": [{"role": "user", "content": text}], "stream": wants_stream}
        connection.request("POST", "/tasks/chat", json.dumps(body), {"Content-Type": "application/json"})
        return connection

    def await_active(self, count):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while json.loads(self.ask("GET", "/workers")[1])["workers"][0]["active"] != count:
            assert time.monotonic() < deadline, f"never saw {count} tasks under way"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def gateway():
    with RunningGateway() as running:
        yield running


def test_a_gateway_serves_on_each_of_its_addresses(gateway):
    assert gateway.ask("GET", "/healthz", port=0) == gateway.ask("GET", "/healthz", port=1)
    assert gateway.ask("GET", "/")[1] == b'{"message":"Server started","success":true}'


def test_a_client_that_leaves_before_the_first_event_cancels_its_task(gateway):
    for wants_stream in (False, True):
        connection = gateway.send_chat("for ever", wants_stream)
        gateway.await_active(1)
        connection.close()
        gateway.await_active(0)


def test_a_client_that_leaves_in_a_silent_stream_cancels_its_task(gateway):
    connection = gateway.send_chat("one token", wants_stream=True)
    response = connection.getresponse()
    assert response.readline() == b"event: token\n"
    gateway.await_active(1)
    response.close()
    connection.close()
    gateway.await_active(0)


def test_a_client_that_stays_gets_its_answer_over_one_connection(gateway):
    connection = gateway.connect()
    for _ in range(2):
        body = json.dumps({"msg": "hi", "temperature": 1})
        connection.request("POST", "/chat", body, {"Content-Type": "application/json"})
        assert connection.getresponse().read().decode() == '{"respond":"你好 😀\\n"}'
    connection.close()


def test_a_chunked_body_over_the_limit_is_refused_before_it_ends(gateway):
    with socket.create_connection(("127.0.0.1", gateway.ports[0]), DEADLINE_SECONDS) as client:
        head = (
            "POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
        )
        client.sendall(head.encode() + b"\r\n\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n" + b"10000\r\n")
        client.sendall(b"x" * 65536 + b"\r\n")  # and no last chunk
        assert client.recv(12) == b"HTTP/1.1 413"


def test_a_chunked_body_within_the_limit_is_read(gateway):
    status, answer = gateway.ask("POST", "/chat", iter([b'{"msg": "hi", ', b'"temperature": 1}']))
    assert (status, answer.decode()) == (200, '{"respond":"你好 😀\\n"}')


def test_a_process_that_dies_is_replaced_in_its_slot():
    with RunningGateway(processes=2) as gateway:
        assert sorted(gateway.slots) == [0, 1]
        os.kill(gateway.slots[1], signal.SIGKILL)
        slot, pid = gateway.read_slot()
        assert slot == 1
        assert pid != gateway.slots[1]
        assert gateway.ask("GET", "/healthz")[0] == 200


def test_sigterm_ends_the_gateway_and_its_streams_in_an_orderly_way():
    with RunningGateway() as gateway:
        connection = gateway.send_chat("until the end", wants_stream=True)
        response = connection.getresponse()
        assert response.readline() == b"event: token\n"
        started = time.monotonic()
        gateway.process.terminate()
        rest = response.read().decode()
        assert '"code":"draining"' in rest.split("event: failed")[1]
        connection.close()
        log = gateway.end()
        assert time.monotonic() - started < 10
    assert gateway.process.returncode == 0
    assert log.splitlines()[0].startswith("MainProcess INFO Gateway listens on http://127.0.0.1:")
    assert "gateway-0 WARNING failed: POST /tasks/chat draining 503 task " in log
    assert len(log.splitlines()) == 2, log


def test_a_taken_address_is_one_clear_line():
    with listen("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}: Address already in use"):
            listen(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "no.such.host.invalid:1"])
def test_an_address_that_is_none_is_one_clear_line(address):
    with pytest.raises(OSError, match=f"cannot listen on {address}: "):
        listen(address)


def test_the_gateway_imports_no_model_library_and_quickly():
    program = (
        "import sys, time; started = time.perf_counter(); import gateway.server; "
        "print(time.perf_counter() - started); "
        "print(*{'torch', 'transformers', 'numpy', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    seconds, *heavy = done.stdout.split()
    assert heavy == []
    assert float(seconds) < 2  # half of it on an idle machine
