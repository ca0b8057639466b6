import os
import signal

import pytest

from records import embedded
from tests.end_to_end.running import START_SECONDS, free_port, text_of
from tests.processes import wait_for

FOX = "the quick brown fox"


def test_a_chat_is_answered_whole_and_as_a_stream(serve):
    server = serve().wait_ready()
    assert server.chat().json()["text"] == FOX
    events = list(server.stream())
    assert text_of(events) == FOX
    assert [name for name, _ in events if name != "token"] == ["finished"]


def test_a_template_task_is_answered_with_rows_of_the_database(serve, folder):
    embedded.ensure(folder / "books.db")
    server = serve("--database", f"sqlite:///{folder}/books.db").wait_ready()
    answer = server.post("book_retrieval", {"wish": "线性代数"}).json()
    assert answer["considered_rows"] == len(embedded.TITLES)
    assert [row["title"] for row in answer["rows"]] == [embedded.TITLES[0]]


def test_two_models_answer_by_name(serve):
    server = serve("--model", "scripted:one", "--model", "other=scripted:two")
    wait_for(
        lambda: server.is_ready() and len(server.get("/workers").json()["workers"]) == 2,
        START_SECONDS,
        "two workers",
    )
    assert server.chat(model="scripted").json()["text"] == "one"
    assert server.chat(model="other").json()["text"] == "two"
    assert server.chat(model="third").json()["error"]["code"] == "unknown_model"


def test_each_of_two_gateway_processes_serves_alone(serve):
    server = serve("--gateways", "2").wait_ready()
    gateways = server.gateway_processes
    assert len(gateways) == 2
    for waits, serves in (gateways, reversed(gateways)):
        os.kill(waits, signal.SIGSTOP)
        server.wait_ready()
        assert server.chat().json()["text"] == FOX, f"process {serves}"
        os.kill(waits, signal.SIGCONT)


def test_a_worker_started_by_hand_serves_a_gateway_that_runs_alone(serve, run):
    server = serve("--workers", "0")
    worker = run("LLMapis.py", "--model", "scripted:by hand", "--listen", f"127.0.0.1:{server.port}")
    server.wait_ready()
    assert server.chat().json()["text"] == "by hand"
    assert worker.stop() == 0
    wait_for(lambda: not server.is_ready(), START_SECONDS, "the worker's goodbye")
    assert server.stop() == 0
    assert server.socket_files() == []


def test_a_worker_dials_a_bus_over_tcp_with_keys(serve, run, folder):
    base = f"tcp://127.0.0.1:{free_port()}"
    keys = ("--bus", base, "--bus-key-file", str(folder / "keys.toml"))
    server = serve("--workers", "0", *keys)
    wait_for((folder / "keys.toml").exists, START_SECONDS, "the file of keys")
    run("LLMapis.py", "--model", "scripted:over tcp", "--dial", base, *keys[2:])
    server.wait_ready()
    assert server.chat().json()["text"] == "over tcp"


def test_settings_reach_gateway_and_worker_also_the_secret_ones(serve):
    environ = {"LECTERN_API_KEY": "a-secret-key", "LECTERN_CAPACITY": "3"}
    server = serve(environ=environ).wait_ready()
    assert server.chat().status_code == 401
    headers = {"Authorization": "Bearer a-secret-key"}
    body = {"messages": [{"role": "user", "content": "hello"}]}
    assert server.post("chat", body, headers=headers).json()["text"] == FOX
    assert "a-secret-key" not in server.output
    assert len(server.processes("--capacity=3")) == 3


@pytest.mark.parametrize("program", ["serveapi.py", "LLMapis.py"])
def test_help_is_printed_and_nothing_starts(run, program):
    shown = run(program, "--help")
    assert shown.wait() == 0
    assert "--model [NAME=]PATH" in shown.output
