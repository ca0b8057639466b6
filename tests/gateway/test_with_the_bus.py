import http.client
import json
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.service import BusService
from contract import Finished
from workers.loop import WorkerLoop
from workers.scripted import ScriptedModel

ROOT = Path(__file__).parents[2]

#: Seconds for anything that a test waits for: far above what it takes on a busy machine.
DEADLINE_SECONDS = 20

PROGRAM = """
import logging, sys
from gateway import Limits
from gateway.server import serve
logging.basicConfig(level=logging.INFO, format="%(message)s")
serve(["127.0.0.1:0"], sys.argv[1:], None, Limits(task_seconds=60))
"""


@contextmanager
def gateway_on(endpoints):
    """Run a real gateway, one process for each endpoint; yields its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *endpoints], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        yield int(re.search(r":(\d+) ", process.stderr.readline())[1])
        process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@contextmanager
def worker_on(endpoints, model):
    """Run a worker loop around a model in a thread."""

    def perform(task):
        completion = yield from model.generate(task.input.messages, task.sampling)
        yield Finished(completion.reasons, completion.usage, completion.timings)

    loop = WorkerLoop(BusService(endpoints), model.card, ["chat"], perform, capacity=8)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield
    finally:
        loop.stop(0.0)
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def endpoints(tmp_path):
    return [f"ipc://{tmp_path}/{number}.ipc" for number in range(2)]


def post_chat(port, wants_stream=False):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": wants_stream}
    connection.request("POST", "/tasks/chat", json.dumps(body), {"Content-Type": "application/json"})
    return connection


def read(connection):
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def eventually(condition):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_ready(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    connection.request("GET", "/readyz")
    return read(connection)[0] == 200


def test_chats_go_through_two_gateway_processes_to_one_worker(endpoints):
    model = ScriptedModel("你好 😀, the quick brown fox")
    with gateway_on(endpoints) as port, worker_on(endpoints, model):
        eventually(lambda: all(is_ready(port) for _ in range(20)))
        for _ in range(6):
            status, body = read(post_chat(port))
            assert (status, json.loads(body)["text"]) == (200, "你好 😀, the quick brown fox")
        status, body = read(post_chat(port, wants_stream=True))
        texts = [json.loads(data)["text"] for data in re.findall(r"event: token\ndata: (.*)\n", body)]
        assert "".join(texts) == "你好 😀, the quick brown fox"
        assert body.count("event: finished") == 1


def test_a_client_that_leaves_stops_the_model(endpoints):
    model = ScriptedModel("on and on " * 1000, pause_seconds=0.01)
    with gateway_on(endpoints[:1]) as port, worker_on(endpoints[:1], model):
        eventually(lambda: is_ready(port))
        for count, wants_stream in enumerate((True, False), start=1):
            connection = post_chat(port, wants_stream)
            eventually(lambda count=count: len(model.prompts) == count)
            connection.close()
            eventually(lambda count=count: model.stopped_early == count)


def test_without_a_worker_a_gateway_says_so(endpoints):
    with gateway_on(endpoints[:1]) as port:
        status, body = read(post_chat(port))
        assert (status, json.loads(body)["error"]["code"]) == (503, "no_worker")


def test_a_client_that_leaves_before_the_first_token_stops_the_model(endpoints):
    model = ScriptedModel("late", pause_seconds=5.0)
    with gateway_on(endpoints[:1]) as port, worker_on(endpoints[:1], model):
        eventually(lambda: is_ready(port))
        connection = post_chat(port)
        eventually(lambda: len(model.prompts) == 1)
        connection.close()
        eventually(lambda: model.stopped_early == 1)
