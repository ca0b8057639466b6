"""Clients of YuanChat and Yuan-2.0, byte by byte, against a real server."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests

from tests.end_to_end.running import ANSWER_SECONDS
from tests.processes import wait_for

BODY = json.dumps({"messages": [{"question": "hi", "answer": ""}]}).encode()


def open_stream(server, body=BODY):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=ANSWER_SECONDS)
    head = f"POST /sse/subscribe HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    return connection


def active(server):
    return [worker["active"] for worker in server.get("/workers").json()["workers"]]


def test_the_head_comes_at_once_and_a_client_that_leaves_frees_the_worker(serve):
    server = serve("--model", "scripted:1:" + "word " * 60).wait_ready()
    started = time.monotonic()
    with closing(open_stream(server)) as connection:
        head = connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-type: text/event-stream; charset=utf-8\r\n" in head.lower()
        assert time.monotonic() - started < 5
        wait_for(lambda: active(server) == [1], ANSWER_SECONDS, "a task")
    wait_for(lambda: active(server) == [0], ANSWER_SECONDS, "the end of the task")


def test_an_answer_is_one_event_on_the_wire(serve):
    server = serve().wait_ready()
    with closing(open_stream(server)) as connection:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(4096)
    _, _, body = received.partition(b"\r\n\r\n")
    size, _, rest = body.partition(b"\r\n")
    event = rest[: int(size, 16)]
    assert event.startswith(b'data: {"flag":true,')
    assert event.endswith(b"\r\n\r\n")
    assert json.loads(event.removeprefix(b"data: "))["resData"]["message"] == "the quick brown fox"


@pytest.mark.parametrize("capacity", ["4", "64"])
def test_many_questions_in_many_requests_all_get_their_answers(serve, capacity):
    server = serve("--model", "scripted:0.001:fox", "--capacity", capacity).wait_ready()

    def put(number):
        ques_list = [{"id": f"{number}-{place}", "ques": "hi"} for place in range(128)]
        body = {"ques_list": ques_list, "tokens_to_generate": 5}
        return requests.put(f"{server.url}/yuan", json=body, timeout=ANSWER_SECONDS).json()

    with ThreadPoolExecutor(2) as pool:
        for number, answer in enumerate(pool.map(put, range(2))):
            assert answer["flag"] is True, answer
            assert answer["resData"]["output"] == [
                {"id": f"{number}-{place}", "ans": "fox"} for place in range(128)
            ]
