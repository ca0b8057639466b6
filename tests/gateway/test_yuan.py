"""Clients of YuanChat's server and of the Yuan-2.0 inference server, against a gateway in this process."""

import json
import threading
import time

import pytest

from contract import Finished, NoWorker, OutputInvalid, Overloaded, Token, WorkerLost
from gateway import Limits, create_app
from gateway.routes import yuan as yuan_routes
from tests.gateway.memory_bus import MemoryBus, answer, fail_with, wait_for_ever

ASKED = {"messages": [{"question": "你好", "answer": ""}]}
EMPTY = {"flag": True, "errCode": "", "errMessage": "", "exceptionMsg": ""}


def subscribe(client, **fields):
    return client.post("/sse/subscribe", json=ASKED | fields)


def events(response):
    """Take a stream apart as the page does: by CR LF CR LF."""
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    *parts, rest = response.data.decode().split("\r\n\r\n")
    response.close()
    assert rest == ""
    return [json.loads(part.removeprefix("data: ")) for part in parts if not part.startswith(":")]


def put(client, *texts, **fields):
    ques_list = [{"id": f"q{number}", "ques": text} for number, text in enumerate(texts)]
    return client.put("/yuan", json={"ques_list": ques_list, **fields})


def talk(*texts):
    def script(task):
        for index, text in enumerate(texts):
            yield Token(index, (index,), text)
        yield Finished()

    return script


def test_an_answer_is_one_event_with_all_of_it():
    before = int(time.time() * 1000)
    client = create_app(MemoryBus(talk("One", "▂two<", "n>", "Three<eod>"))).test_client()
    response = subscribe(client)
    assert response.status_code == 200
    (event,) = events(response)
    data = event.pop("resData")
    assert event == EMPTY
    assert data["message"] == "One two\nThree"
    assert before <= data["time"] <= int(time.time() * 1000)


def test_a_growing_answer_is_whole_in_each_event(monkeypatch):
    monkeypatch.setattr(yuan_routes, "GROW_SECONDS", 0.0)
    client = create_app(MemoryBus(talk("One", " two", "", " three"))).test_client()
    told = events(subscribe(client, stream=True))
    assert [event["resData"]["message"] for event in told] == [
        "One",
        "One two",
        "One two three",
        "One two three",
    ]
    assert all(event["flag"] is True for event in told)


def test_growth_is_not_told_more_often_than_it_is_read(monkeypatch):
    client = create_app(MemoryBus(talk(*["word "] * 500))).test_client()
    assert len(events(subscribe(client, stream=True))) < 20


def test_pings_come_while_the_model_works(monkeypatch):
    monkeypatch.setattr(yuan_routes, "PING_SECONDS", 0.0)
    bus = MemoryBus(lambda task: (yield from [None, None, *answer(task)]))
    lines = subscribe(create_app(bus).test_client()).data.decode().split("\r\n\r\n")
    assert lines[0].startswith(": ping - 20")
    assert lines[-2].startswith("data: ")


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("wants_growth", [False, True])
def test_a_failure_is_shown_to_the_reader(after, wants_growth):
    bus = MemoryBus(fail_with(WorkerLost("the worker died"), after))
    response = subscribe(create_app(bus).test_client(), stream=wants_growth)
    assert response.status_code == 200
    last = events(response)[-1]
    assert last["flag"] is True
    assert "the worker died" in last["resData"]["message"]
    assert last["errCode"] == "worker_lost"
    assert bus.active == 0


def test_a_bad_request_is_shown_to_the_reader_and_reaches_no_worker(client, bus):
    for fields, words in [
        ({"temperature": 2}, "temperature: must be <= 1"),
        ({"top_k": 11}, "top_k"),
        ({"messages": []}, "messages"),
        ({"other": 1}, "other: unknown field"),
    ]:
        response = subscribe(client, **fields)
        assert response.status_code == 200
        (event,) = events(response)
        assert event["errCode"] == "invalid_request"
        assert words in event["errMessage"]
        assert words in event["resData"]["message"]
    for body, kind in [(b"{", "application/json"), (b"{}", "text/plain"), (b"\xff", "application/json")]:
        response = client.post("/sse/subscribe", data=body, content_type=kind)
        assert events(response)[0]["errCode"] == "invalid_request"
    assert bus.tasks == []


def test_a_body_over_the_limit_is_told_in_the_same_form(bus):
    client = create_app(bus, Limits(body_bytes=1024)).test_client()
    (event,) = events(subscribe(client, messages=[{"question": "x" * 2000, "answer": ""}]))
    assert event["errCode"] == "body_too_large"
    assert put(client, "x" * 2000).json["errMessage"] == "body: must be at most 1024 bytes"


def test_who_has_no_key_is_told_in_the_form_of_the_path(bus):
    client = create_app(bus, Limits(api_keys=("long-enough",))).test_client()
    refused = subscribe(client)
    assert refused.status_code == 401
    assert events(refused)[0]["errCode"] == "unauthorized"
    refused = put(client, "hi")
    assert (refused.status_code, refused.json["flag"]) == (401, False)


def test_a_wrong_method_is_told(client):
    response = client.post("/yuan", json={})
    assert (response.status_code, response.json["flag"]) == (405, False)
    assert client.get("/sse/subscribe").status_code == 405


def test_a_client_that_leaves_cancels_its_task():
    bus = MemoryBus(wait_for_ever)
    client = create_app(bus).test_client()
    response = client.post("/sse/subscribe", json=ASKED, buffered=False)
    assert response.status_code == 200
    response.close()
    assert bus.active == 0


def test_two_readers_at_once_get_their_own_answers():
    bus = MemoryBus(lambda task: talk(*task.input.messages[-1].content)(task))
    client = create_app(bus).test_client()
    texts = ["first question", "second question"] * 8
    got = {}

    def ask(number):
        asked = [{"question": texts[number], "answer": ""}]
        (event,) = events(create_client(client).post("/sse/subscribe", json={"messages": asked}))
        got[number] = event["resData"]["message"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [got[number] for number in range(len(texts))] == texts


def create_client(client):
    return client.application.test_client()


def test_the_inference_server_answers_each_question_under_its_name():
    bus = MemoryBus(lambda task: talk("re: ", task.input.messages[-1].content)(task))
    response = put(create_app(bus).test_client(), "a", "b<sep>", "c<n>d", tokens_to_generate=5)
    assert response.status_code == 200
    assert response.json == {
        "flag": True,
        "errCode": "0",
        "errMessage": "success",
        "exceptionMsg": "",
        "resData": {
            "output": [
                {"id": "q0", "ans": "re: a"},
                {"id": "q1", "ans": "re: b"},
                {"id": "q2", "ans": "re: c\nd"},
            ]
        },
    }
    assert bus.active == 0


def test_questions_of_one_request_are_worked_on_together():
    together = threading.Barrier(5, timeout=20)

    def script(task):
        together.wait()
        yield from talk("done")(task)

    response = put(create_app(MemoryBus(script)).test_client(), *"abcde")
    assert [one["ans"] for one in response.json["resData"]["output"]] == ["done"] * 5


def test_more_questions_than_places_are_worked_on_in_turn():
    most, active, lock = 0, 0, threading.Lock()

    def script(task):
        nonlocal most, active
        with lock:
            active += 1
            most = max(most, active)
        try:
            yield from talk("done")(task)
        finally:
            with lock:
                active -= 1

    response = put(create_app(MemoryBus(script)).test_client(), *(["hi"] * 128))
    assert len(response.json["resData"]["output"]) == 128
    assert 1 <= most <= 7  # the worker has eight places, and one stays free for others


def test_a_full_worker_is_asked_again():
    refusals = iter([True, False, True, False, False])

    def script(task):
        if next(refusals, False):
            yield from fail_with(Overloaded("full"))(task)
        yield from talk("done")(task)

    response = put(create_app(MemoryBus(script)).test_client(), *"abc")
    assert response.json["flag"] is True


@pytest.mark.parametrize(
    ("error", "code"), [(OutputInvalid("it is broken"), 2), (NoWorker("nobody is there"), 2)]
)
def test_a_failure_of_the_inference_server_has_both_messages(error, code):
    bus = MemoryBus(fail_with(error))
    response = put(create_app(bus).test_client(), "a", "b")
    assert response.status_code == 200
    told = response.json
    assert (told["flag"], told["errCode"], told["resData"]) == (False, code, {})
    assert told["errMessage"] == told["exceptionMsg"] == str(error)
    assert bus.active == 0


def test_one_question_that_fails_ends_the_others():
    def script(task):
        if task.input.messages[-1].content == "bad":
            yield from fail_with(OutputInvalid("it is broken"))(task)
        yield from wait_for_ever(task)

    bus = MemoryBus(script)
    response = put(create_app(bus).test_client(), "good", "bad")
    assert response.json["errMessage"] == "it is broken"


def test_a_bad_question_is_refused_with_both_messages(client, bus):
    told = put(client, "a", top_p=3).json
    assert (told["flag"], told["errCode"]) == (False, 1)
    assert told["errMessage"] == told["exceptionMsg"] == "top_p: must be <= 1, got 3"
    assert bus.tasks == []


def test_without_a_worker_one_is_told_at_once():
    bus = MemoryBus(fail_with(NoWorker("no worker is connected")), workers=())
    started = time.monotonic()
    assert put(create_app(bus).test_client(), "a").json["exceptionMsg"] == "no worker is connected"
    assert time.monotonic() - started < 5
