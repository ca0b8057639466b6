import json

import pytest

from contract import (
    ModelCard,
    NoWorker,
    Overloaded,
    PromptTooLong,
    Token,
    TookTooLong,
    UnknownModel,
    WorkerLost,
)
from gateway import Limits, create_app, server_sent_events
from gateway.app import STREAMS
from tests.gateway.memory_bus import MemoryBus, Worker, answer, fail_with

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


def error_of(response):
    assert response.mimetype == "application/json"
    body = json.loads(response.data)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


def events_of(response):
    """Every event of a stream as JSON, and whether it ended with [DONE]."""
    *events, last = response.data.decode().split("\n\n")
    assert last == ""
    assert all(event.startswith(("data: ", ": ")) for event in events)
    texts = [event.removeprefix("data: ") for event in events if event.startswith("data: ")]
    is_done = texts[-1] == "[DONE]"
    return [json.loads(text) for text in (texts[:-1] if is_done else texts)], is_done


def worker(name, **fields):
    return Worker(name, ModelCard(name, "0", 1024), **fields)


def test_a_chat_is_answered_as_one_completion(client, bus):
    response = client.post(PATH, json=CHAT | {"model": "memory", "n": 2})
    body = json.loads(response.data)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert [choice["message"]["content"] for choice in body["choices"]] == ["你好 😀\n"] * 2
    assert "😀" in response.data.decode()
    assert body["id"] == f"chatcmpl-{bus.tasks[0].task_id}"
    assert bus.active == 0


def test_a_stream_has_a_role_the_text_a_reason_the_usage_and_done(client, bus):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = client.post(PATH, json=CHAT | options)
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    chunks, is_done = events_of(response)
    assert is_done
    *said, usage = chunks
    choices = [choice for chunk in said for choice in chunk["choices"]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "你好 😀\n"
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 10
    assert len({chunk["id"] for chunk in chunks}) == 1
    response.close()
    assert bus.active == 0


@pytest.mark.parametrize("sent", [{}, {"model": None}])
def test_without_a_model_the_first_of_the_list_answers_and_is_named(sent):
    bus = MemoryBus(workers=[worker("a", is_leaving=True), worker("c"), worker("b")])
    body = json.loads(create_app(bus).test_client().post(PATH, json=CHAT | sent).data)
    assert (body["model"], bus.tasks[0].model) == ("b", "b")


def test_without_any_worker_the_bus_says_so():
    bus = MemoryBus(fail_with(NoWorker("no worker is connected")), workers=())
    response = create_app(bus).test_client().post(PATH, json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == (503, "no_worker")
    assert response.headers["Retry-After"] == "1"


def test_each_model_is_listed_once_and_found_by_its_name():
    names = ["zoo/b", "a", "zoo/b"]
    client = create_app(MemoryBus(workers=[worker(name) for name in names])).test_client()
    listed = json.loads(client.get("/v1/models").data)
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["a", "zoo/b"]
    assert {key: listed["data"][1][key] for key in ("object", "owned_by")} == {
        "object": "model",
        "owned_by": "lectern",
    }
    assert json.loads(client.get("/v1/models/zoo/b").data) == listed["data"][1]
    missing = client.get("/v1/models/zoo")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("wants_stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnknownModel("none"), 404, "model_not_found"),
        (PromptTooLong("9 tokens of 8"), 400, "context_length_exceeded"),
        (Overloaded("full", retry_after_seconds=2.1), 503, "overloaded"),
        (TookTooLong("late"), 504, "took_too_long"),
    ],
)
def test_a_failure_before_the_first_token_is_a_status(error, status, code, wants_stream):
    client = create_app(MemoryBus(fail_with(error))).test_client()
    response = client.post(PATH, json=CHAT | {"stream": wants_stream})
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert response.headers.get("Retry-After") == ("3" if status == 503 else None)


def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(caplog):
    caplog.set_level("INFO")
    bus = MemoryBus(fail_with(WorkerLost("the worker died"), after=2))
    response = create_app(bus).test_client().post(PATH, json=CHAT | {"stream": True})
    events, is_done = events_of(response)
    assert response.status_code == 200
    assert not is_done
    assert [set(event) >= {"choices"} for event in events] == [True, True, True, False]
    assert events[-1]["error"]["code"] == "worker_lost"
    assert caplog.messages == [f"failed: POST {PATH} worker_lost 503 task {bus.tasks[0].task_id}"]


def test_a_bad_request_reaches_no_worker_and_names_the_parameter(client, bus):
    response = client.post(PATH, json=CHAT | {"temperature": 9})
    assert response.status_code == 400
    assert error_of(response) == {
        "message": "temperature: must be <= 2, got 9",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "invalid_request",
    }
    assert bus.tasks == []


@pytest.mark.parametrize(("method", "path", "status", "code"), [
    ("GET", "/v1/engines", 404, "unknown_url"),
    ("POST", "/v1/", 404, "unknown_url"),
    ("GET", PATH, 405, "method_not_supported"),
    ("DELETE", "/v1/models/memory", 405, "method_not_supported"),
])  # fmt: skip
def test_a_wrong_path_or_method_is_told_in_openais_form(client, method, path, status, code):
    response = client.open(path, method=method)
    assert (response.status_code, error_of(response)["code"]) == (status, code)


@pytest.mark.parametrize(("body", "content_type", "status", "code"), [
    (b"", "application/json", 400, "invalid_request"),
    (b"not json", "application/json", 400, "invalid_request"),
    (b"{}", "text/plain", 400, "invalid_request"),
    (b'"' + b"x" * 10_000_000 + b'"', "application/json", 413, "body_too_large"),
])  # fmt: skip
def test_a_bad_body_is_refused_in_openais_form(client, body, content_type, status, code):
    response = client.post(PATH, data=body, content_type=content_type)
    assert (response.status_code, error_of(response)["code"]) == (status, code)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing"])
def test_without_a_key_the_refusal_is_openais(bus, path):
    client = create_app(bus, Limits(api_keys=("first",))).test_client()
    response = client.get(path)
    assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert client.get("/v1/models", headers={"Authorization": "Bearer first"}).status_code == 200


def test_our_own_error_is_told_without_details():
    def broken(task):
        raise RuntimeError("the secret detail")
        yield

    response = create_app(MemoryBus(broken)).test_client().post(PATH, json=CHAT)
    assert response.status_code == 500
    assert error_of(response)["type"] == "server_error"
    assert "secret" not in response.data.decode()


def test_a_gateway_that_is_leaving_says_so_in_openais_form(bus):
    app = create_app(bus)
    app.extensions[STREAMS].drain()
    response = app.test_client().post(PATH, json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == (503, "draining")
    assert response.headers["Retry-After"] == "1"


def test_closing_a_stream_cancels_its_task():
    def endless(task):
        while True:
            yield Token(0, (0,), "x")

    bus = MemoryBus(endless)
    response = create_app(bus).test_client().post(PATH, json=CHAT | {"stream": True}, buffered=False)
    assert b"chat.completion.chunk" in next(response.response)
    assert bus.active == 1
    response.close()
    assert bus.active == 0


def test_a_silent_stream_says_that_it_lives(monkeypatch):
    monkeypatch.setattr(server_sent_events, "KEEP_ALIVE_SECONDS", 0.0)
    bus = MemoryBus(lambda task: (yield from [Token(0, (0,), "a"), None, *list(answer(task))[3:]]))
    response = create_app(bus).test_client().post(PATH, json=CHAT | {"stream": True})
    parts = response.data.decode().split("\n\n")
    assert [part for part in parts if not part.startswith("data: ")] == [": waiting", ""]
    assert events_of(response)[1]
