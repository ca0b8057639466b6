import json
import math
import re

import pytest

from contract import DatabaseDown, NoWorker, Overloaded, Token, WorkerLost
from gateway import Limits, create_app, server_sent_events
from tests.gateway.memory_bus import BOOKS_TEXT, MemoryBus, answer, fail_with, wait_for_ever

CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def error_of(response):
    assert response.mimetype == "application/json"
    body = json.loads(response.data)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "retryable"}
    return body["error"]


def test_a_chat_is_answered_as_one_json(client, bus):
    response = client.post("/tasks/chat", json=CHAT)
    body = json.loads(response.data)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert body["text"] == "你好 😀\n"
    assert "😀" in response.data.decode()
    assert body["task_id"] == bus.tasks[0].task_id
    assert list(body) == ["task_id", "text", "stop_reason", "usage", "timings"]
    assert bus.active == 0


def test_a_stream_is_these_bytes(client, bus):
    response = client.post("/tasks/chat", json=CHAT | {"stream": True})
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.data.decode() == (
        'event: token\ndata: {"index":0,"text":"你好 "}\n\n'
        'event: token\ndata: {"index":2,"text":"😀\\n"}\n\n'
        f'event: finished\ndata: {{"task_id":"{bus.tasks[0].task_id}","stop_reason":"stop",'
        '"usage":{"prompt_tokens":7,"cached_tokens":2,"completion_tokens":3,"steps":4},'
        '"timings":{"first_token_seconds":0.5,"total_seconds":1.5}}\n\n'
    )
    response.close()
    assert bus.active == 0


def test_every_choice_is_answered_whole(client):
    body = json.loads(client.post("/tasks/chat", json=CHAT | {"choices": 3}).data)
    assert body["text"] == "你好 😀\n"
    assert body["choices"] == [{"text": "你好 😀\n", "stop_reason": "stop"}] * 3


def test_books_are_found(client):
    body = json.loads(client.post("/tasks/book_retrieval", json={"wish": "函数求导"}).data)
    assert body["answer"] == json.loads(BOOKS_TEXT)
    assert [row["key"] for row in body["rows"]] == [11, 14]
    assert body["considered_rows"] == 25


def test_a_streamed_template_task_ends_with_its_rows(client):
    response = client.post("/tasks/book_retrieval", json={"wish": "函数", "stream": True})
    last = response.data.decode().split("\n\n")[-2]
    assert last.startswith("event: finished\ndata: ")
    assert json.loads(last.partition("data: ")[2])["considered_rows"] == 25


def test_the_old_routes_answer_in_their_own_form(client):
    for path, name in [("/chat", "msg"), ("/kernel_chat", "prompt")]:
        response = client.post(path, json={name: "hi", "temperature": "0.5"})
        assert response.data.decode() == '{"respond":"你好 😀\\n"}'
    for path, name in [("/book", "msg"), ("/getbooks", "prompt")]:
        body = json.loads(client.post(path, json={name: "函数", "temperature": 1}).data)
        assert json.loads(body["respond"]) == json.loads(BOOKS_TEXT)
        assert body["books"][0] == {"id": 11, "title": "微积分之旅：从初级到高级"}


@pytest.mark.parametrize("path", ["/tasks/chat", "/chat"])
@pytest.mark.parametrize("wants_stream", [False, True])
def test_a_failure_before_the_first_token_is_a_status(path, wants_stream):
    bus = MemoryBus(fail_with(Overloaded("all full", retry_after_seconds=2.1)))
    body = {"msg": "x", "temperature": 1} if path == "/chat" else CHAT | {"stream": wants_stream}
    response = create_app(bus).test_client().post(path, json=body)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "3"
    assert error_of(response) == {"code": "overloaded", "message": "all full", "retryable": True}
    assert bus.active == 0


@pytest.mark.parametrize(
    "error", [NoWorker("none"), DatabaseDown("down"), Overloaded("x", retry_after_seconds=0)]
)
def test_every_503_says_when_to_come_back(error):
    response = create_app(MemoryBus(fail_with(error))).test_client().post("/tasks/chat", json=CHAT)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"


def test_a_failure_in_the_middle_of_a_stream_is_its_last_event():
    bus = MemoryBus(fail_with(WorkerLost("the worker died"), after=2))
    response = create_app(bus).test_client().post("/tasks/chat", json=CHAT | {"stream": True})
    events = response.data.decode().split("\n\n")
    assert response.status_code == 200
    assert [event.split("\n")[0] for event in events[:-1]] == [
        "event: token",
        "event: token",
        "event: failed",
    ]
    assert '"code":"worker_lost"' in events[2]


def test_a_failure_in_the_middle_of_a_whole_answer_is_a_status():
    bus = MemoryBus(fail_with(WorkerLost("the worker died"), after=2))
    response = create_app(bus).test_client().post("/tasks/chat", json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == (503, "worker_lost")


def test_an_unknown_task_is_not_found(client, bus):
    response = client.post("/tasks/nonsense", json={"wish": "x"})
    assert (response.status_code, error_of(response)["code"]) == (404, "unknown_task")


def test_a_bad_request_reaches_no_worker(client, bus):
    response = client.post("/tasks/chat", json=CHAT | {"temperature": 9})
    assert response.status_code == 400
    assert error_of(response)["message"] == "temperature: must be <= 2, got 9"
    assert bus.tasks == []


def test_closing_a_stream_cancels_its_task():
    def endless(task):
        index = 0
        while True:
            yield Token(index, (index,), "x")
            index += 1

    bus = MemoryBus(endless)
    response = create_app(bus).test_client().post("/tasks/chat", json=CHAT | {"stream": True}, buffered=False)
    assert next(response.response).startswith(b"event: token")
    assert bus.active == 1
    response.close()
    assert bus.active == 0


def test_the_streams_of_a_gateway_are_bounded():
    bus = MemoryBus(lambda task: (yield from [*list(answer(task))[:1], *[None] * 9, *list(answer(task))[1:]]))
    client = create_app(bus, Limits(streams=1)).test_client()
    first = client.post("/tasks/chat", json=CHAT | {"stream": True}, buffered=False)
    refused = client.post("/tasks/chat", json=CHAT)
    assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    first.close()
    assert client.post("/tasks/chat", json=CHAT).status_code == 200


def test_a_task_over_its_time_is_ended():
    bus = MemoryBus(wait_for_ever)
    response = create_app(bus, Limits(task_seconds=0.1)).test_client().post("/tasks/chat", json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == (504, "took_too_long")
    assert error_of(response)["message"] == "the task took longer than 0.1 seconds"
    assert bus.active == 0


def test_a_silent_stream_says_that_it_lives(monkeypatch):
    monkeypatch.setattr(server_sent_events, "KEEP_ALIVE_SECONDS", 0.0)
    bus = MemoryBus(lambda task: (yield from [Token(0, (0,), "a"), None, *list(answer(task))[3:]]))
    response = create_app(bus).test_client().post("/tasks/chat", json=CHAT | {"stream": True})
    parts = response.data.decode().split("\n\n")
    assert [part.split("\n")[0] for part in parts] == ["event: token", ": waiting", "event: finished", ""]


@pytest.mark.parametrize("events", [[], [Token(0, (0,), "a")]])
@pytest.mark.parametrize("wants_stream", [False, True])
def test_a_bus_that_breaks_its_promise_is_an_internal_error(events, wants_stream, caplog):
    client = create_app(MemoryBus(lambda task: (yield from events))).test_client()
    response = client.post("/tasks/chat", json=CHAT | {"stream": wants_stream})
    assert re.search(r'"error":{"code":"internal_error","message":"internal error"', response.data.decode())
    assert response.status_code == (200 if events and wants_stream else 500)
    assert "without Finished or Failed" in caplog.text


def test_retry_after_is_a_whole_number_of_seconds(client):
    for seconds in (0.2, 1.0, 59.01):
        bus = MemoryBus(fail_with(Overloaded("x", retry_after_seconds=seconds)))
        response = create_app(bus).test_client().post("/tasks/chat", json=CHAT)
        assert response.headers["Retry-After"] == str(math.ceil(seconds))
