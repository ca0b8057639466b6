"""The whole server with a TPU worker in a process of its own, over HTTP; and the chat in a terminal."""

import json
import re
import shutil
import signal
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests
from websockets.sync.client import connect

import LLMkernel
from contract import Sampling, Task, Wish
from records import Database
from templates import load_tasks
from tests.end_to_end.running import Running, Server, text_of
from tests.end_to_end.test_terminal_chat import Chat
from tests.tpu.bmodels import BOOKS, ROOT, provide
from workers.local import load_local_model
from workers.placement import Placement

HERE = Path(__file__).parent

TITLES = ("微积分之旅", "光学", "法语启蒙")

#: Seconds for an answer; a token takes a fiftieth, and tenths where others want the processors, too.
ANSWER_SECONDS = 120

#: One turn in the terminal, with what is measured below it.
TURN = re.compile(r"\nQuestion: \nAnswer: (.+)\nFTL: \d+\.\d{3} s\nTPS: \d+\.\d{3} token/s\n", re.DOTALL)


@contextmanager
def started():
    """The server over a small catalogue; its folder's path is short, as a socket's has 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="lectern-"))
    with closing(sqlite3.connect(folder / "books.db")) as connection, connection:
        connection.execute("CREATE TABLE book (id INTEGER PRIMARY KEY, title CHAR(255))")
        connection.executemany("INSERT INTO book (title) VALUES (?)", [(title,) for title in TITLES])
    flags = ("--bmodel", f"tiny={provide(BOOKS).bmodel}", "--dev-id", "0", "--database", catalogue(folder))
    tokenizer = ("--token-config", str(BOOKS.checkpoint))
    running = Server((*flags, *tokenizer), folder, {"PYTHONPATH": str(HERE)})
    try:
        yield running.wait_ready()
    finally:
        running.end()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server():
    with started() as server:
        yield server


def catalogue(folder):
    return f"sqlite:///{folder}/books.db"


def titles_by_torch(wish, database):
    """Return what the same task chooses with the checkpoint that the bmodel was compiled from."""
    place = Placement(device="cpu", threads=1, executor="torch")
    with closing(load_local_model(BOOKS.checkpoint, "tiny", place)) as model:
        task = Task("book_retrieval", Wish(wish), Sampling())
        *_, finished = LLMkernel.perform(task, model, load_tasks(ROOT / "templates"), Database(database))
    return [row.fields["title"] for row in finished.answer.rows]


def post(server, path, **body):
    response = requests.post(f"{server.url}{path}", json=body, timeout=ANSWER_SECONDS)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_chat_is_answered(server):
    body = {"messages": [{"role": "user", "content": "你好"}], "temperature": 0, "max_tokens": 4}
    answer = post(server, "/tasks/chat", **body)
    assert answer["usage"]["completion_tokens"] <= 4
    assert post(server, "/tasks/chat", **body)["text"] == answer["text"]


def test_the_book_task_chooses_the_rows_that_the_checkpoint_chooses(server):
    answer = post(server, "/tasks/book_retrieval", wish="求导")
    assert answer["considered_rows"] == len(TITLES)
    titles = [row["title"] for row in answer["rows"]]
    assert titles == titles_by_torch("求导", catalogue(server.folder))
    assert set(titles) < set(TITLES)
    assert titles


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


def test_a_server_that_is_stopped_finishes_its_answer_and_ends_by_itself():
    with started() as server:
        events = server.stream(temperature=0, max_tokens=20, ignore_end=True)
        first = next(events)
        server.send(signal.SIGTERM)
        *tokens, (last, told) = events
        assert server.wait() == 0
        assert "is killed" not in server.output
    assert last == "finished", told
    assert told["usage"]["completion_tokens"] == 20
    assert text_of([first, *tokens])


def test_a_person_chats_in_the_terminal(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    flags = ("--bmodel", str(provide(BOOKS).bmodel), "--token-config", str(BOOKS.checkpoint))
    session = Chat(*flags, "--context-tokens", "32")
    try:
        status, shown, log = session.finish("你好\nexit\n", ANSWER_SECONDS)
    finally:
        session.process.kill()
    assert status == 0, log
    assert TURN.match(shown), shown


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
