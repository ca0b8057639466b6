"""The question server as its clients see it: a real gateway, a real bus, a worker around a scripted model."""

import json
import threading
import time

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.gateway.question_server import (
    CLOSE,
    DEADLINE_SECONDS,
    PING,
    PONG,
    TEXT,
    RawClient,
    frame,
    gateway_in,
    patiently,
    worker_for,
)
from workers.scripted import ScriptedModel


def echo(messages):
    return f"you said {messages[-1].content}"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with gateway_in(tmp_path_factory.mktemp("bus")) as gateway:
        yield gateway


@pytest.fixture
def model():
    """Echoes; slowly enough that many questions are under way together."""
    return ScriptedModel(echo, pause_seconds=0.002)


@pytest.fixture
def client(gateway, model):
    with worker_for(gateway, model, capacity=64), connect(gateway.url, proxy=None) as client:
        yield client


def ask(client, id_, question="hi", **fields):
    client.send(json.dumps({"id": id_, "question": question, **fields}))


def read(client):
    return json.loads(client.recv(DEADLINE_SECONDS))


def read_all(client, count):
    """Return so many replies by their ids, each of which comes once."""
    replies = {}
    for _ in range(count):
        reply = read(client)
        assert reply["id"] not in replies
        replies[reply["id"]] = reply
    return replies


def test_a_question_is_answered_in_the_old_servers_very_form(client):
    client.send('{"id": 0, "question": "你好"}')
    frame = client.recv(DEADLINE_SECONDS)
    seconds = json.loads(frame)["ftl"]
    assert frame == f'{{"id": 0, "answer": "you said 你好", "ftl": {seconds}}}'
    assert 0 < seconds < DEADLINE_SECONDS


@pytest.mark.parametrize("path", ["/", "/ws", "/any/path?with=query"])
def test_it_is_spoken_at_any_path(gateway, model, path):
    with worker_for(gateway, model), connect(gateway.url.rstrip("/") + path, proxy=None) as client:
        ask(client, 1)
        assert read(client)["answer"] == "you said hi"


def test_a_thousand_questions_on_one_connection_are_worked_on_together(client, model):
    started = time.monotonic()
    for number in range(1000):
        ask(client, number, f"question {number}")
    pong = client.ping()
    replies = read_all(client, 1000)
    seconds = time.monotonic() - started
    assert pong.wait(DEADLINE_SECONDS)
    assert {number: reply["answer"] for number, reply in replies.items()} == {
        number: f"you said question {number}" for number in range(1000)
    }
    one_by_one = 1000 * 4 * 0.002
    assert seconds < one_by_one / 2
    assert model.stopped_early == 0


def test_control_frames_and_pings_are_answered_while_the_model_works(gateway):
    with worker_for(gateway, ScriptedModel("word " * 5000, pause_seconds=0.01), capacity=8):
        with connect(gateway.url, proxy=None) as client:
            for number in range(20):
                ask(client, number)
            gateway.await_active(lambda active: active == 7)  # and one place is left to others
            for _ in range(3):
                assert client.ping().wait(DEADLINE_SECONDS)
                client.send("tps")
                client.send("ftl")
                assert float(client.recv(DEADLINE_SECONDS)) >= 0.0
                assert float(client.recv(DEADLINE_SECONDS)) >= 0.0
        gateway.await_active(lambda active: active == 0)


def test_tps_and_ftl_are_nought_before_any_work_and_count_all_clients(gateway):
    with (
        worker_for(gateway, ScriptedModel("one two three", pause_seconds=0.02)),
        connect(gateway.url, proxy=None) as first,
        connect(gateway.url, proxy=None) as second,
    ):
        for word in ("tps", "ftl"):
            first.send(word)
            assert first.recv(DEADLINE_SECONDS) == "0.0"
        ask(first, 1)
        assert read(first)["answer"] == "one two three"
        second.send("tps")
        tps = float(second.recv(DEADLINE_SECONDS))
        second.send("ftl")
        ftl = float(second.recv(DEADLINE_SECONDS))
    assert 0 < tps < 1 / 0.02
    assert 0.02 < ftl < DEADLINE_SECONDS


def test_every_message_has_its_own_options(client):
    for number in range(0, 400, 4):
        ask(client, number, "A B C D E F")
        ask(client, number + 1, "A B C D E F", forward_times=3)
        ask(client, number + 2, "A B C D E F", is_decode=False, forward_times=2)
        ask(client, number + 3, "the answer is C or D", is_predict_option=True, forward_times=1)
    replies = read_all(client, 400)
    for number in range(0, 400, 4):
        assert replies[number]["answer"] == "you said A B C D E F"
        assert replies[number + 1]["answer"] == "you said A"
        assert [type(one) for one in replies[number + 2]["answer"]] == [int, int]
        assert replies[number + 3]["answer"] == "C"


def test_two_clients_at_once_never_get_each_others_answers(gateway, client):
    def exam(own, name, replies):
        for number in range(300):
            ask(own, number, f"{name} {number}")
        replies |= read_all(own, 300)

    with connect(gateway.url, proxy=None) as other:
        replies = {"first": {}, "second": {}}
        threads = [
            threading.Thread(target=exam, args=(own, name, replies[name]))
            for own, name in ((client, "first"), (other, "second"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
    for name, own in replies.items():
        assert [own[number]["answer"] for number in range(300)] == [
            f"you said {name} {number}" for number in range(300)
        ]


def test_a_client_that_comes_later_has_its_turn_before_an_exam_is_over(gateway):
    with (
        worker_for(gateway, ScriptedModel(echo, pause_seconds=0.01), capacity=4),
        connect(gateway.url, proxy=None) as exam,
        connect(gateway.url, proxy=None) as person,
    ):
        for number in range(500):
            ask(exam, number)
        read(exam)
        ask(person, 0)
        read(person)
        exam.send("tps")
        seen = 0
        while exam.recv(DEADLINE_SECONDS).startswith("{"):
            seen += 1
        assert seen < 250


BAD_TEXTS = ["", "hello", "{", "[]", "7", '{"id": 5}', '{"id": 5, "question": 1}', '{"question": "q"}', "TPS"]


def test_bad_frames_are_told_and_hurt_nobody_else(client):
    for number, text in enumerate(BAD_TEXTS):
        ask(client, number)
        client.send(text)
    client.send(b'{"id": 1, "question": "q"}')
    replies = [read(client) for _ in range(2 * len(BAD_TEXTS) + 1)]
    answers = {reply["id"]: reply["answer"] for reply in replies if "answer" in reply}
    errors = [reply for reply in replies if "error" in reply]
    assert answers == dict.fromkeys(range(len(BAD_TEXTS)), "you said hi")
    assert [error["id"] for error in errors] == [None] * 5 + [5, 5, None, None, None]
    assert {error["error"]["code"] for error in errors} == {"invalid_request"}
    ask(client, "still here")
    assert read(client)["id"] == "still here"


def test_a_task_that_fails_is_told_and_hurts_nobody_else(gateway):
    model = ScriptedModel("fine", context_tokens=10)
    with worker_for(gateway, model), connect(gateway.url, proxy=None) as client:
        ask(client, "long", "word " * 50)
        ask(client, "short")
        replies = read_all(client, 2)
    assert replies["long"]["error"]["code"] == "prompt_too_long"
    assert replies["short"]["answer"] == "fine"


def test_questions_wait_for_a_worker_that_comes_soon(gateway, model):
    with connect(gateway.url, proxy=None) as client:
        for number in range(2):
            ask(client, number)
            with worker_for(gateway, model):
                assert read(client)["answer"] == "you said hi"


def test_without_a_worker_every_question_gets_an_error(gateway):
    with connect(gateway.url, proxy=None) as client:
        for number in range(50):
            ask(client, number)
        replies = read_all(client, 50)
    assert {reply["error"]["code"] for reply in replies.values()} == {"no_worker"}


@pytest.mark.parametrize("leave", ["close", "cut"])
def test_a_client_that_leaves_cancels_all_its_questions(gateway, leave):
    model = ScriptedModel("word " * 5000, pause_seconds=0.005)
    with (
        worker_for(gateway, model, capacity=16),
        connect(gateway.url, proxy=None) as other,
        RawClient(gateway.port) as raw,
    ):
        for number in range(100):
            raw.send(TEXT, json.dumps({"id": number, "question": "q"}).encode())
        gateway.await_active(lambda active: active == 14)
        if leave == "cut":
            raw.cut()
        else:
            raw.send(CLOSE, b"\x03\xe8")
            while raw.receive() != (0x80 | CLOSE, b"\x03\xe8"):
                pass
            assert raw.is_at_end()
        gateway.await_active(lambda active: active == 0)
        patiently(lambda: model.stopped_early == 14)
        other.send("tps")
        assert float(other.recv(DEADLINE_SECONDS)) > 0


def test_a_message_may_come_in_fragments_with_a_ping_between_them(gateway, model):
    with worker_for(gateway, model), RawClient(gateway.port) as raw:
        raw.send(TEXT, b'{"id": 1, "ques', is_last=False)
        raw.send(0, b"", is_last=False)
        raw.send(PING, b"are you there")
        assert raw.receive() == (0x80 | PONG, b"are you there")
        raw.send(0, 'tion": "你'.encode()[:-1], is_last=False)
        raw.send(0, 'tion": "你'.encode()[-1:] + b'"}')
        assert json.loads(raw.receive_text())["answer"] == "you said 你"


def test_frames_may_come_byte_by_byte_or_many_at_once(gateway, model):
    with worker_for(gateway, model), RawClient(gateway.port) as raw:
        for byte in frame(TEXT, b'{"id": 1, "question": "slow"}'):
            raw.send_bytes(bytes([byte]))
        assert json.loads(raw.receive_text())["answer"] == "you said slow"
        raw.send_bytes(b"".join(frame(TEXT, b'{"id": %d, "question": "q"}' % number) for number in range(50)))
        assert {json.loads(raw.receive_text())["id"] for _ in range(50)} == set(range(50))


def test_a_text_that_is_not_utf_8_is_told_and_the_connection_goes_on(gateway, model):
    with worker_for(gateway, model), RawClient(gateway.port) as raw:
        raw.send(TEXT, b'{"id": 1, "question": "\xff"}')
        assert json.loads(raw.receive_text())["error"]["message"] == "frame: must be text in UTF-8"
        raw.send(TEXT, b'{"id": 1, "question": "hi"}')
        assert json.loads(raw.receive_text())["answer"] == "you said hi"


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda raw: raw.send(TEXT, b"x" * 100_001), 1009),
        (lambda raw: [raw.send(TEXT, b"x" * 60_000, is_last=False), raw.send(0, b"x" * 60_000)], 1009),
        (lambda raw: raw.send(TEXT, b"tps", is_masked=False), 1002),
        (lambda raw: raw.send(0x3, b""), 1002),
        (lambda raw: raw.send(0, b"nothing to continue"), 1002),
        (lambda raw: raw.send_bytes(b"GET / HTTP/1.1\r\n\r\n"), 1002),
    ],
    ids=["too long", "too long in all", "not masked", "reserved", "continues nothing", "no frame"],
)
def test_what_breaks_the_protocol_ends_its_own_connection_only(gateway, model, send, code):
    with (
        worker_for(gateway, model),
        connect(gateway.url, proxy=None) as other,
        RawClient(gateway.port) as raw,
    ):
        send(raw)
        first, payload = raw.receive()
        assert (first, int.from_bytes(payload[:2])) == (0x80 | CLOSE, code)
        assert raw.is_at_end()
        ask(other, 1)
        assert read(other)["answer"] == "you said hi"


def test_a_client_that_sends_everything_before_it_reads_loses_nothing(gateway):
    with worker_for(gateway, ScriptedModel("long answer " * 4), capacity=64), RawClient(gateway.port) as raw:
        for number in range(2000):
            raw.send(TEXT, json.dumps({"id": number, "question": "x" * 500}).encode())
        gateway.await_active(lambda active: active == 0)
        assert {json.loads(raw.receive_text())["id"] for _ in range(2000)} == set(range(2000))


def test_a_get_without_upgrade_is_what_it_was(gateway):
    response = requests.get(f"http://127.0.0.1:{gateway.port}/", timeout=DEADLINE_SECONDS)
    assert response.json() == {"message": "Server started", "success": True}
    assert requests.get(f"http://127.0.0.1:{gateway.port}/ws", timeout=DEADLINE_SECONDS).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Origin: http://elsewhere.example\r\n", 400),
        ("Origin: null\r\n", 400),
        ("Sec-WebSocket-Key: again\r\n", 400),
    ],
)
def test_a_handshake_that_is_not_in_order_is_a_failure_as_any_other(gateway, headers, status):
    with RawClient(gateway.port, headers=headers) as raw:
        assert raw.handshake.startswith(f"HTTP/1.1 {status} ")


def test_a_page_of_this_server_may_connect(gateway):
    with RawClient(gateway.port, headers=f"Origin: http://127.0.0.1:{gateway.port}\r\n") as raw:
        assert raw.handshake.startswith("HTTP/1.1 101 ")
        raw.send(TEXT, b"ftl")
        assert float(raw.receive_text()) >= 0.0


def test_a_key_is_asked_for_where_there_are_keys(tmp_path):
    with gateway_in(tmp_path, "secret") as gateway:
        for path in ("", "healthz", "ws"):
            with pytest.raises(InvalidStatus, match="401"):
                connect(gateway.url + path, proxy=None)
        with connect(
            gateway.url, proxy=None, additional_headers={"Authorization": "Bearer secret"}
        ) as client:
            client.send("tps")
            assert client.recv(DEADLINE_SECONDS) == "0.0"


def test_a_server_that_ends_lets_answers_finish_and_says_good_bye(tmp_path):
    with gateway_in(tmp_path) as gateway, worker_for(gateway, ScriptedModel("one two", pause_seconds=0.3), 4):
        with connect(gateway.url, proxy=None) as busy, connect(gateway.url, proxy=None) as idle:
            for number in range(30):
                ask(busy, number)
            gateway.await_active(lambda active: active == 4)
            started = time.monotonic()
            gateway.process.terminate()
            replies = read_all(busy, 30)
            for client in (busy, idle):
                with pytest.raises(ConnectionClosed) as gone:
                    client.recv(DEADLINE_SECONDS)
                assert gone.value.rcvd.code == 1001
        assert gateway.end() == 0
        assert time.monotonic() - started < 10
    answered = [reply for reply in replies.values() if reply.get("answer") == "one two"]
    failed = [reply for reply in replies.values() if "error" in reply]
    assert len(answered) >= 4
    assert {reply["error"]["code"] for reply in failed} == {"draining"}
    assert len(answered) + len(failed) == 30


def test_what_fails_leaves_one_line_and_what_does_not_leaves_none(tmp_path):
    with gateway_in(tmp_path) as gateway:
        with worker_for(gateway, ScriptedModel("fine")), connect(gateway.url, proxy=None) as client:
            ask(client, 1)
            read(client)
            client.send("nonsense")
            read(client)
        gateway.end()
        _, *lines = gateway.log.splitlines()
    assert lines == ["failed: GET / invalid_request 400 task -"]
