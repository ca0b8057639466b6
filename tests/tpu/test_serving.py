"""The whole server with a TPU worker in a process of its own, over HTTP."""

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import requests
from websockets.sync.client import connect

from tests.end_to_end.running import Running, Server
from tests.tpu.bmodels import BOOKS, provide

HERE = Path(__file__).parent

TITLES = ("微积分之旅", "光学", "法语启蒙")

#: Seconds for an answer: a token takes half a second.
ANSWER_SECONDS = 120


@pytest.fixture(scope="module")
def server():
    """The server over a small catalogue; its folder's path is short, as a socket's has 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="lectern-"))
    with closing(sqlite3.connect(folder / "books.db")) as connection, connection:
        connection.execute("CREATE TABLE book (id INTEGER PRIMARY KEY, title CHAR(255))")
        connection.executemany("INSERT INTO book (title) VALUES (?)", [(title,) for title in TITLES])
    flags = ("--bmodel", f"tiny={provide(BOOKS).bmodel}", "--dev-id", "0", "--database")
    tokenizer = ("--token-config", str(BOOKS.checkpoint))
    running = Server((*flags, f"sqlite:///{folder}/books.db", *tokenizer), folder, {"PYTHONPATH": str(HERE)})
    try:
        yield running.wait_ready()
    finally:
        running.end()
        shutil.rmtree(folder)


def post(server, path, **body):
    response = requests.post(f"{server.url}{path}", json=body, timeout=ANSWER_SECONDS)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_chat_is_answered(server):
    body = {"messages": [{"role": "user", "content": "你好"}], "temperature": 0, "max_tokens": 4}
    answer = post(server, "/tasks/chat", **body)
    assert answer["usage"]["completion_tokens"] <= 4
    assert post(server, "/tasks/chat", **body)["text"] == answer["text"]


def test_the_book_task_is_answered_with_rows_of_the_catalogue(server):
    answer = post(server, "/tasks/book_retrieval", wish="求导")
    assert answer["considered_rows"] == len(TITLES)
    titles = [row["title"] for row in answer["rows"]]
    assert titles
    assert set(titles) <= set(TITLES)
    assert len(set(titles)) == len(titles)


def test_an_option_is_predicted_over_a_websocket(server):
    with connect(server.url.replace("http://", "ws://"), proxy=None) as client:
        client.send(json.dumps({"id": 7, "question": "求导", "is_predict_option": True}))
        reply = json.loads(client.recv(ANSWER_SECONDS))
    assert reply["id"] == 7
    assert reply["answer"] in ("A", "B", "C", "D")


def test_openai_clients_get_a_form_that_is_kept(server):
    answer = post(
        server,
        "/v1/chat/completions",
        model="tiny",
        messages=[{"role": "user", "content": "你好"}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "yes", "schema": {"type": "boolean"}},
        },
    )
    assert json.loads(answer["choices"][0]["message"]["content"]) in (True, False)


def test_without_the_vendors_package_a_bmodel_says_what_to_install(tmp_path):
    provide(BOOKS)
    worker = Running(
        "LLMapis.py", ("--bmodel", str(BOOKS.bmodel), "--token-config", str(BOOKS.checkpoint)), tmp_path, {}
    )
    try:
        assert worker.wait() == 78
    finally:
        worker.end()
    assert "sophon-sail" in worker.output
