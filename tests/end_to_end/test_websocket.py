"""The question server in a whole Lectern: gateway, bus and workers as a person starts them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from bus.assignment import MOST_LOSSES
from contract import ChatMessage, Sampling
from tests.end_to_end.running import ANSWER_SECONDS, START_SECONDS
from tests.processes import wait_for
from workers.scripted import ScriptedModel

ROOT = Path(__file__).parents[2]

#: Ten words, half a second.
SLOW = "scripted:0.05:" + "word " * 10


def exam(client, count, **fields):
    for number in range(count):
        client.send(json.dumps({"id": number, "question": f"question {number}", **fields}))


def replies(client, count):
    found = [json.loads(client.recv(ANSWER_SECONDS)) for _ in range(count)]
    assert sorted(reply["id"] for reply in found) == list(range(count))
    return found


def websocket(server):
    return connect(server.url.replace("http://", "ws://"), proxy=None)


def test_a_worker_killed_in_the_middle_of_an_exam_loses_no_question(serve):
    server = serve("--model", SLOW, "--capacity", "16").wait_ready()
    (worker,) = server.workers
    with websocket(server) as client:
        exam(client, 60)
        first = json.loads(client.recv(ANSWER_SECONDS))
        os.kill(worker, signal.SIGKILL)
        found = [first, *(json.loads(client.recv(ANSWER_SECONDS)) for _ in range(59))]
    assert sorted(reply["id"] for reply in found) == list(range(60))
    assert {reply.get("answer", "").strip() for reply in found} == {("word " * 10).strip()}


def test_a_question_that_kills_every_worker_gets_an_error(serve):
    server = serve("--model", "scripted:60:never").wait_ready()
    with websocket(server) as client:
        exam(client, 1)
        killed = set()
        for _ in range(MOST_LOSSES + 1):
            name = wait_for(lambda: next(iter(at_work(server) - killed), None), START_SECONDS, "the task")
            killed.add(name)
            for worker in server.workers:
                os.kill(worker, signal.SIGKILL)
        (reply,) = replies(client, 1)
    assert reply["error"]["code"] == "worker_lost"


def at_work(server):
    """Return the names of the workers that hold a task."""
    return {worker["worker"] for worker in server.get("/workers").json()["workers"] if worker["active"]}


def test_an_exam_over_two_gateways_and_two_workers_is_answered_whole(serve):
    model = "scripted:0.01:the answer is C"
    server = serve("--model", model, "--workers", "2", "--gateways", "2", "--capacity", "8").wait_ready()
    with websocket(server) as first, websocket(server) as second:
        exam(first, 100, is_predict_option=True)
        exam(second, 100)
        assert {reply["answer"] for reply in replies(first, 100)} == {"C"}
        assert {reply["answer"] for reply in replies(second, 100)} == {"the answer is C"}


@pytest.mark.parametrize("fields", [{"is_predict_option": True}, {"is_decode": False, "forward_times": 3}])
def test_the_embedded_model_answers(serve, fields):
    server = serve("--model", str(ROOT / "models" / "demo")).wait_ready()
    with websocket(server) as client:
        exam(client, 8, **fields)
        for reply in replies(client, 8):
            if "is_predict_option" in fields:
                assert reply["answer"] in ("A", "B", "C", "D")
            else:
                assert 0 < len(reply["answer"]) <= 3
        client.send("ftl")
        assert float(client.recv(ANSWER_SECONDS)) > 0


def ids_of(script):
    """Return the ids that a scripted model says."""
    model = ScriptedModel(script)
    return [id_ for token in model.generate((ChatMessage("user", "?"),), Sampling()) for id_ in token.ids]


def test_the_example_runs(serve):
    server = serve("--model", "scripted:the answer is B").wait_ready()
    shown = subprocess.run(
        [sys.executable, "examples/websocket_client.py", server.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ANSWER_SECONDS,
        check=True,
    )
    *answers, speeds = shown.stdout.splitlines()
    assert sorted(answer.partition(" (first")[0] for answer in answers) == [
        "0: 'the answer is B'",
        "1: 'the answer is B'",
        f"2: {ids_of('the answer is B')}",
        "3: 'B'",
    ]
    assert "tokens a second" in speeds
