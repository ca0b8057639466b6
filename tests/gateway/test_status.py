import json

import pytest

from gateway import create_app
from gateway.app import STREAMS
from tests.gateway.memory_bus import MemoryBus, Worker
from tests.gateway.test_tasks import CHAT, error_of

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html;q=0.5, application/json"])
def test_a_program_is_told_that_the_server_started(client, accept):
    response = client.get("/", headers={"Accept": accept} if accept else {})
    assert response.data == b'{"message":"Server started","success":true}'
    assert response.mimetype == "application/json"


def test_a_browser_gets_the_page(client):
    with client.get("/", headers={"Accept": BROWSER}) as response:
        assert response.mimetype == "text/html"
        assert b"<title>Lectern</title>" in response.data
        assert "Accept" in response.headers["Vary"]


def test_every_file_that_the_page_names_is_served(client):
    with client.get("/", headers={"Accept": BROWSER}) as response:
        page = response.data.decode()
    names = [part.split('"')[0] for part in page.split('"/static/')[1:]]
    assert names
    for name in names:
        with client.get(f"/static/{name}") as response:
            assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/nothing", "/static/app.js"])
def test_every_answer_carries_the_security_headers(client, path):
    with client.get(path) as response:
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_gateway_is_alive_without_workers_but_not_ready(caplog):
    client = create_app(MemoryBus(workers=())).test_client()
    assert client.get("/healthz").status_code == 200
    response = client.get("/readyz")
    assert (response.status_code, error_of(response)["code"]) == (503, "no_worker")
    assert response.headers["Retry-After"] == "1"
    assert caplog.messages == []


def test_a_gateway_is_ready_with_a_worker_that_stays():
    ready = create_app(MemoryBus(workers=[Worker("a", is_leaving=True), Worker("b")])).test_client()
    leaving = create_app(MemoryBus(workers=[Worker("a", is_leaving=True)])).test_client()
    assert ready.get("/readyz").status_code == 200
    assert leaving.get("/readyz").status_code == 503


def test_the_workers_are_listed(client):
    body = json.loads(client.get("/workers").data)
    assert body["workers"][0]["worker"] == "memory"
    assert body["workers"][0]["model"]["name"] == "memory"


def test_a_gateway_that_is_leaving_takes_no_new_task(bus):
    app = create_app(bus)
    app.extensions[STREAMS].drain()
    response = app.test_client().post("/tasks/chat", json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == (503, "draining")
    assert app.test_client().get("/readyz").status_code == 503
    assert app.test_client().get("/healthz").status_code == 200
