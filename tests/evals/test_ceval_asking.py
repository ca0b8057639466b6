"""Both ways of asking, and what becomes of servers that break, refuse or talk nonsense."""

import json
import threading
from random import Random

import pytest

from evals.ceval.asking import FRUITLESS_CONNECTIONS, ask_all
from evals.ceval.channel import Reply, Speed, Wish
from evals.ceval.errors import GaveUp, ServerUnusable
from evals.ceval.over_http import HttpChannel
from evals.ceval.over_websocket import WebSocketChannel
from tests.evals.exam_servers import PATIENCE, completion, http_exam, reply, websocket_exam

PROMPTS = {number: f"question {number}" for number in range(6)}


class Given:
    """What came of asking everything, with the pauses that were made and the reasons that were told."""

    def __init__(self, channel, prompts=PROMPTS):
        self.replies, self.pauses, self.told = [], [], []
        try:
            self.refused = ask_all(
                channel, prompts, self.replies.append, pause=self.pauses.append, tell=self.told.append
            )
        finally:
            channel.close()

    @property
    def answers(self):
        return {one.number: one.answer for one in self.replies}


def ask_websocket(exam, wish=None, patience=PATIENCE, key=None):
    return Given(WebSocketChannel(exam.url, wish or Wish(), patience, key))


def ask_http(url, wish=None, **options):
    return Given(HttpChannel(url, wish or Wish(), PATIENCE, **options))


def letter(number):
    return "ABCD"[number % 4]


ALL = {number: letter(number) for number in PROMPTS}


def error(frame, code):
    return json.dumps({"id": frame["id"], "error": {"code": code, "message": "no"}})


def test_all_questions_go_out_on_one_connection_and_answers_come_in_any_order():
    channel = None
    with websocket_exam(lambda _, frame: reply(frame, letter(frame["id"])), batch=len(PROMPTS)) as exam:
        channel = WebSocketChannel(exam.url, Wish(), PATIENCE)
        given = Given(channel)
        (frames,) = exam.connections
    assert frames == [
        {"id": number, "question": prompt, "is_predict_option": True} for number, prompt in PROMPTS.items()
    ]
    assert [one.number for one in given.replies] == [5, 4, 3, 2, 1, 0]
    assert given.replies[0] == Reply(5, "B", 0.25)
    assert given.answers == ALL
    assert channel.speed == Speed(12.5, 0.25)


@pytest.mark.parametrize(
    ("wish", "field"), [(Wish(predicts=False), {}), (Wish(False, 7), {"forward_times": 7})]
)
def test_free_answers_are_asked_for_without_options(wish, field):
    with websocket_exam(lambda _, frame: reply(frame, "因为…所以A")) as exam:
        given = ask_websocket(exam, wish)
        assert exam.connections[0][0] == {"id": 0, "question": "question 0", **field}
    assert given.answers[0] == "因为…所以A"


def test_a_key_is_shown():
    with websocket_exam(lambda _, frame: reply(frame, "A")) as exam:
        ask_websocket(exam, key="secret")
        assert exam.requests[0].headers["Authorization"] == "Bearer secret"


def test_after_a_break_only_what_is_missing_is_asked_again():
    def answer(connection, frame):
        # The first connection breaks at question 2, the second at question 4.
        is_break = frame["id"] == 2 * (connection + 1) and connection < 2
        return None if is_break else reply(frame, letter(frame["id"]))

    with websocket_exam(answer) as exam:
        given = ask_websocket(exam)
        asked = [[frame["id"] for frame in frames] for frames in exam.connections]
    assert given.answers == ALL
    assert len(given.replies) == len(PROMPTS)
    assert [ids[0] for ids in asked] == [0, 2, 4]
    assert asked[2] == [4, 5]
    assert given.pauses == [1.0, 1.0]


def test_a_server_that_always_breaks_is_given_up():
    with websocket_exam(lambda _, frame: None) as exam:
        pauses = []
        with pytest.raises(GaveUp, match=f"{FRUITLESS_CONNECTIONS} connections in a row"):
            ask_all(
                WebSocketChannel(exam.url, Wish(), PATIENCE),
                PROMPTS,
                lambda reply: None,
                pause=pauses.append,
                tell=lambda words: None,
            )
        assert len(exam.connections) == FRUITLESS_CONNECTIONS
    assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0]


def test_a_server_that_is_not_there_is_given_up():
    with websocket_exam(lambda _, frame: None) as exam:
        url = exam.url
    with pytest.raises(GaveUp, match="refused"):
        Given(WebSocketChannel(url, Wish(), PATIENCE))


def test_a_server_that_falls_silent_is_left():
    def answer(connection, frame):
        return "" if connection == 0 and frame["id"] == 5 else reply(frame, letter(frame["id"]))

    with websocket_exam(answer) as exam:
        given = ask_websocket(exam, patience=1.0)
        assert [frame["id"] for frame in exam.connections[1]] == [5]
    assert given.answers == ALL
    assert "no answer within 1 s" in given.told[0]


def test_a_server_that_no_longer_reads_is_left():
    released, is_late = threading.Event(), threading.Event()

    def answer(connection, frame):
        if connection == 0 and not released.wait(PATIENCE):
            is_late.set()
        return reply(frame, "A")

    # More than the system keeps on the way, also when it is compressed.
    prompts = dict.fromkeys(range(100), Random(1).randbytes(150_000).hex())
    with websocket_exam(answer) as exam:
        given = Given(WebSocketChannel(exam.url, Wish(), 1.0), prompts)
        assert len(exam.connections[1]) == 100
        released.set()
    assert not is_late.is_set()
    assert given.answers == dict.fromkeys(prompts, "A")
    assert "no answer within 1 s" in given.told[0]


def test_what_was_put_off_is_asked_again_and_what_was_refused_is_not():
    def answer(connection, frame):
        if frame["id"] == 3:
            return error(frame, "prompt_too_long")
        if frame["id"] == 1 and connection == 0:
            return error(frame, "overloaded")
        return reply(frame, letter(frame["id"]))

    with websocket_exam(answer) as exam:
        given = ask_websocket(exam)
        assert [frame["id"] for frame in exam.connections[1]] == [1]
    assert given.refused == {3: "prompt_too_long: no"}
    assert given.answers == {number: letter(number) for number in PROMPTS if number != 3}


@pytest.mark.parametrize(
    "nonsense",
    ["hello", "[]", '{"id": 0}', '{"id": 77, "answer": "A", "ftl": 0.1}', '{"id": null, "error": {}}'],
)
def test_a_frame_that_is_no_answer_ends_the_connection(nonsense):
    def answer(connection, frame):
        return nonsense if connection == 0 else reply(frame, letter(frame["id"]))

    with websocket_exam(answer) as exam:
        given = ask_websocket(exam)
        assert len(exam.connections) == 2
    assert given.answers == ALL


@pytest.mark.parametrize(
    ("status", "kind", "words", "handshakes"),
    [
        (404, ServerUnusable, "refuses a WebSocket: HTTP 404", 1),
        (401, ServerUnusable, "refuses a WebSocket: HTTP 401", 1),
        (503, GaveUp, "HTTP 503", FRUITLESS_CONNECTIONS),
    ],
)
def test_a_refused_handshake_is_tried_again_only_if_the_server_is_busy(status, kind, words, handshakes):
    with http_exam(lambda body: (status, "")) as (url, bodies):
        with pytest.raises(kind, match=words):
            Given(WebSocketChannel(url.replace("http", "ws"), Wish(), PATIENCE))
        assert len(bodies) == handshakes


def test_over_http_the_letter_is_chosen_by_a_form_at_temperature_zero():
    with http_exam(lambda body: completion("C")) as (url, bodies):
        given = ask_http(url, key="secret", model="glm")
    assert given.answers == dict.fromkeys(PROMPTS, "C")
    body = next(body for body in bodies if body["messages"][0]["content"] == "question 0")
    assert body == {
        "path": "/v1/chat/completions",
        "key": "Bearer secret",
        "model": "glm",
        "messages": [{"role": "user", "content": "question 0"}],
        "temperature": 0,
        "structured_outputs": {"choice": ["A", "B", "C", "D"]},
    }


def test_over_http_free_answers_have_no_form():
    with http_exam(lambda body: completion("因为…所以A")) as (url, bodies):
        given = ask_http(url, Wish(False, 9))
    assert given.answers[5] == "因为…所以A"
    assert bodies[0]["max_tokens"] == 9
    assert "structured_outputs" not in bodies[0]


def test_over_http_as_many_are_asked_at_once_as_was_said():
    now, most = [0], [0]
    lock, reached = threading.Lock(), threading.Event()

    def answer(body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 3:
                reached.set()
        assert reached.wait(PATIENCE)
        with lock:
            now[0] -= 1
        return completion("A")

    with http_exam(answer) as (url, _):
        assert len(ask_http(url, at_once=3).answers) == len(PROMPTS)
    assert most == [3]


def test_over_http_a_busy_server_is_asked_again():
    refusals = iter([(503, "busy"), (429, "too many"), (504, "late")])
    with http_exam(lambda body: next(refusals, None) or completion("B")) as (url, bodies):
        given = ask_http(url, at_once=1)
    assert given.answers == dict.fromkeys(PROMPTS, "B")
    assert len(bodies) == len(PROMPTS) + 3
    assert given.told[0].startswith("HTTP 503: busy")


def test_over_http_a_question_may_be_refused_alone():
    def answer(body):
        is_long = body["messages"][0]["content"] == "question 2"
        return (400, "too long") if is_long else completion("D")

    with http_exam(answer) as (url, _):
        given = ask_http(url)
    assert given.refused == {2: "HTTP 400: too long"}
    assert len(given.answers) == len(PROMPTS) - 1


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ((401, "who are you"), "answers HTTP 401: who are you"),
        ((404, "no"), "answers HTTP 404"),
        ((200, "<html>"), "something else than a chat completion: <html>"),
        ((200, {"choices": []}), "something else than a chat completion"),
        (completion("答案是A"), "does not keep answers to `structured_outputs`, so ask with --free"),
    ],
)
def test_over_http_a_server_that_cannot_do_it_is_not_asked_again(outcome, words):
    with http_exam(lambda body: outcome) as (url, bodies):
        with pytest.raises(ServerUnusable, match=words):
            ask_http(url, at_once=1)
        assert len(bodies) <= 2


def test_over_http_a_server_that_is_not_there_is_given_up():
    with http_exam(lambda body: completion("A")) as (url, _):
        pass
    with pytest.raises(GaveUp, match="refused"):
        ask_http(url)
