import json
import logging

import pytest

from contract import OutputInvalid
from gateway import Limits, create_app
from tests.gateway.memory_bus import MemoryBus, fail_with
from tests.gateway.test_tasks import CHAT, error_of

POSTS = ["/tasks/chat", "/tasks/book_retrieval", "/chat", "/book", "/kernel_chat", "/getbooks"]


def post(client, path, body, content_type="application/json"):
    return client.post(path, data=body, content_type=content_type)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "application/json", 400, "invalid_request"),
        (b"not json", "application/json", 400, "invalid_request"),
        (b'{"wish": "\xff"}', "application/json", 400, "invalid_request"),
        (b"[" * 100_000, "application/json", 400, "invalid_request"),
        (b'{"temperature": NaN}', "application/json", 400, "invalid_request"),
        (b"{}", "text/plain", 400, "invalid_request"),
        (b"{}", "", 400, "invalid_request"),
        (b"a=1", "application/x-www-form-urlencoded", 400, "invalid_request"),
        (b'"' + b"x" * 10_000_000 + b'"', "application/json", 413, "body_too_large"),
    ],
)
def test_a_bad_body_is_refused_in_the_same_form_everywhere(
    client, bus, path, body, content_type, status, code
):
    response = post(client, path, body, content_type)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert error_of(response)["retryable"] is False
    assert bus.tasks == []


@pytest.mark.parametrize("length", [101, 102, 1000])
def test_a_body_over_the_limit_is_named_with_the_limit(bus, length):
    client = create_app(bus, Limits(body_bytes=100)).test_client()
    assert error_of(post(client, "/chat", b"x" * length))["message"] == "body: must be at most 100 bytes"


def test_a_body_of_just_the_limit_is_read(bus):
    body = b'{"msg": "hi", "temperature": 1}'
    client = create_app(bus, Limits(body_bytes=len(body))).test_client()
    assert post(client, "/chat", body).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/tasks", "/tasks/", "/tasks/a/b", "//chat", "/static/none.js"])
def test_an_unknown_path_is_a_json_404(client, path):
    response = client.post(path, json={})
    if path.startswith("/static"):
        response = client.get(path)
    assert (response.status_code, error_of(response)["code"]) == (404, "unknown_route")


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", "/chat", {"OPTIONS", "POST"}),
    ("DELETE", "/tasks/chat", {"OPTIONS", "POST"}),
    ("PUT", "/tasks/book_retrieval", {"OPTIONS", "POST"}),
    ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
    ("BREW", "/", {"GET", "HEAD", "OPTIONS"}),
])  # fmt: skip
def test_a_wrong_method_is_told_the_right_ones(client, method, path, allowed):
    response = client.open(path, method=method)
    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == allowed


def test_options_and_head_are_answered_without_a_body(client, bus):
    options = client.options("/tasks/chat")
    assert (options.status_code, options.data) == (200, b"")
    assert set(options.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}
    head = client.head("/healthz")
    assert (head.status_code, head.data) == (200, b"")
    assert client.head("/tasks/chat").status_code == 405


def test_our_own_error_is_logged_with_its_trace_and_told_without_details(caplog):
    def broken(task):
        raise RuntimeError("the secret detail")
        yield

    response = create_app(MemoryBus(broken)).test_client().post("/tasks/chat", json=CHAT)
    assert response.status_code == 500
    assert error_of(response) == {"code": "internal_error", "message": "internal error", "retryable": False}
    assert "the secret detail" in caplog.text
    assert "Traceback" in caplog.text


def test_a_failure_leaves_one_line_without_body_query_or_key(caplog):
    caplog.set_level(logging.DEBUG)
    client = create_app(MemoryBus(), Limits(api_keys=("key-of-mine",))).test_client()
    headers = {"Authorization": "Bearer key-of-mine"}
    client.post("/tasks/chat?q=secret-query", json=CHAT | {"secret-body": 1}, headers=headers)
    assert [record.getMessage() for record in caplog.records] == [
        "failed: POST /tasks/chat invalid_request 400 task -"
    ]
    assert caplog.records[0].exc_info is None


def test_a_line_break_in_a_path_does_not_break_the_log_line(client, caplog):
    caplog.set_level(logging.INFO)
    client.get("/x%0aFAKE%20LINE")
    assert caplog.messages == ["failed: GET /x%0AFAKE%20LINE unknown_route 404 task -"]


def test_a_failed_task_is_logged_with_its_id(caplog):
    bus = MemoryBus(fail_with(OutputInvalid("no object")))
    response = create_app(bus).test_client().post("/tasks/book_retrieval", json={"wish": "x"})
    assert response.status_code == 502
    task_id = bus.tasks[0].task_id
    assert caplog.messages == [f"failed: POST /tasks/book_retrieval output_invalid 502 task {task_id}"]


def test_errors_carry_characters_as_they_are(client):
    response = client.post("/tasks/chat", json=CHAT | {"温度": 1})
    assert json.loads(response.data)["error"]["message"] == "温度: unknown field"
    assert "温度" in response.data.decode()
