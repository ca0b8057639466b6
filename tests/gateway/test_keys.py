import re

import pytest
from flask import request

from gateway import Limits, create_app
from gateway.keys import caller_of
from tests.gateway.memory_bus import MemoryBus
from tests.gateway.test_tasks import CHAT, error_of


@pytest.fixture
def guarded(bus):
    return create_app(bus, Limits(api_keys=("first", "schlüssel"))).test_client()


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer firs", "Bearer first2", "Basic first", "first"],
)
def test_a_request_without_a_known_key_is_refused(guarded, bus, header):
    response = guarded.post("/tasks/chat", json=CHAT, headers={"Authorization": header} if header else {})
    assert (response.status_code, error_of(response)["code"]) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert bus.tasks == []


@pytest.mark.parametrize("header", ["Bearer first", "bearer first", "Bearer  first "])
def test_a_request_with_a_known_key_is_served(guarded, header):
    assert guarded.post("/tasks/chat", json=CHAT, headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/static/app.js"])
def test_page_and_health_need_no_key(guarded, path):
    with guarded.get(path) as response:
        assert response.status_code == 200


@pytest.mark.parametrize("path", ["/workers", "/nothing"])
def test_everything_else_needs_one(guarded, path):
    assert guarded.get(path).status_code == 401


def test_the_key_is_checked_before_the_body_is_read(guarded):
    assert guarded.post("/chat", data=b"x" * 5_000_000, content_type="application/json").status_code == 401


def test_keys_are_not_printed():
    assert "first" not in repr(Limits(api_keys=("first",)))


def test_without_keys_everybody_may_ask():
    assert create_app(MemoryBus()).test_client().get("/workers").status_code == 200


def caller(app, address="127.0.0.1", key=None):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with app.test_request_context("/", headers=headers, environ_base={"REMOTE_ADDR": address}):
        return caller_of(request)


def test_callers_are_told_apart_by_key_and_else_by_address():
    app = create_app(MemoryBus())
    assert caller(app) == caller(app)
    assert caller(app, key="first") == caller(app, "127.0.0.2", "first")
    seen = {caller(app), caller(app, "127.0.0.2"), caller(app, key="first"), caller(app, key="127.0.0.1")}
    assert len(seen) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in seen)


def test_a_browser_may_ask_what_it_may_send_without_a_key(guarded):
    assert guarded.options("/stream").status_code == 200
    assert guarded.post("/stream", json={"query": "hi"}).status_code == 401
