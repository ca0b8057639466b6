"""my-chatglm2's paths, with a bus in memory."""

import json
import threading

import pytest

from contract import Failed, Finished, NoWorker, Overloaded, PromptTooLong, Token, TookTooLong
from gateway import Limits, create_app
from tests.gateway.memory_bus import MemoryBus, fail_with, wait_for_ever

BODY = {"query": "hi"}
STREAMS = ["/stream", "/generate"]


def events(response):
    """Split a body into events and take each apart, as the web client does with a chunk."""
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    *texts, rest = response.get_data(as_text=True).split("\n\n")
    assert rest == ""
    return [json.loads(text.removeprefix("data: ")) for text in texts]


def test_stream_tells_the_whole_answer_with_every_event(client, bus):
    told = events(client.post("/stream", json=BODY | {"history": [["a", "b"]], "answer_prefix": "So: "}))
    assert told[0] == ["So: 你好 ", [["a", "b"], ["hi", "So: 你好 "]]]
    assert told[-1] == ["So: 你好 😀\n", [["a", "b"], ["hi", "So: 你好 😀\n"]]]
    (task,) = bus.tasks
    assert task.input.drops_history
    assert bus.active == 0


def test_generate_answers_whole_as_plain_text(client):
    for response in (
        client.post("/generate", json=BODY | {"answer_prefix": "So: "}),
        client.get("/generate", query_string={"query": "hi", "answer_prefix": "So: ", "stream": "false"}),
    ):
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert response.get_data(as_text=True) == "So: 你好 😀\n"


def test_generate_streams_if_asked(client):
    for response in (
        client.post("/generate", json=BODY | {"stream": True}),
        client.get("/generate?query=hi&stream=true"),
    ):
        told = events(response)
        assert told[0] == {"response": "你好 "}
        assert told[-1] == {"response": "你好 😀\n"}


def test_an_address_and_a_body_ask_for_the_same(client, bus):
    fields = {"query": "你好", "max_length": 4096, "top_p": 0.5, "temperature": 2, "history": [["a", "b"]]}
    client.post("/generate", json=fields)
    client.get("/generate", query_string=fields | {"history": json.dumps(fields["history"])})
    first, second = bus.tasks
    assert (first.input, first.sampling, first.caller) == (second.input, second.sampling, second.caller)


def test_an_answer_without_text_is_told_once():
    def nothing(task):
        yield None
        yield Finished()

    response = create_app(MemoryBus(nothing)).test_client().post("/stream", json=BODY)
    assert response.data == b'data: ["",[["hi",""]]]\n\n'


BAD = [
    (b"", "body: must be a JSON object, got nothing"),
    (b"{", "body: must be JSON: "),
    (b"\xff", "body: must be "),
    (b"[]", "body: must be an object, got []"),
    (b"{}", "query: is required"),
    (b'{"query": ""}', "query: must not be blank"),
    (b'{"query": "a", "max_length": "x"}', 'max_length: must be an integer, got "x"'),
    (b'{"query": "a", "history": [["\\n\\n"]]}', "history[0]: "),
    (b"[" * 100, "body: JSON must nest at most 32 levels deep"),
    (b"x" * 2_000_000, "body: must be at most 1048576 bytes"),
    (b'{"query": "%s"}' % (b"a" * 500_000), "query too large."),
]


@pytest.mark.parametrize(("body", "words"), BAD, ids=range(len(BAD)))
def test_bad_input_to_stream_is_an_event_with_plain_text(client, bus, body, words):
    response = client.post("/stream", data=body)
    assert response.status_code == 200
    text = response.get_data(as_text=True)
    assert text.startswith(f"data: {words}")
    assert text.endswith("\n\n")
    assert text.count("\n") == 2
    assert bus.tasks == []


@pytest.mark.parametrize(("body", "words"), BAD, ids=range(len(BAD)))
def test_bad_input_to_generate_is_plain_text_with_a_status(client, bus, body, words):
    response = client.post("/generate", data=body)
    assert response.status_code == (413 if "bytes" in words else 400)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.get_data(as_text=True).startswith(words)
    assert bus.tasks == []


def test_bad_input_to_a_generate_that_streams_is_an_event(client):
    for response in (
        client.post("/generate", json={"stream": True, "query": ""}),
        client.get("/generate?stream=1&query="),
    ):
        assert response.status_code == 200
        assert response.data == b"data: query: must not be blank\n\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PromptTooLong("the prompt has 9 tokens"), "query too large."),
        (NoWorker("no worker is connected"), "no worker is connected"),
        (Overloaded("all 1 workers are full"), "all 1 workers are full"),
        (ZeroDivisionError("secret"), "internal error"),
    ],
)
def test_a_task_that_fails_is_told_in_the_protocols_form(error, text):
    client = create_app(MemoryBus(fail_with(error))).test_client()
    assert client.post("/stream", json=BODY).data == f"data: {text}\n\n".encode()
    assert client.get("/generate?query=hi&stream=true").data == f"data: {text}\n\n".encode()
    response = client.post("/generate", json=BODY)
    assert (response.status_code, response.get_data(as_text=True)) == (Failed.from_error(error).status, text)


def test_a_task_that_fails_amid_its_answer_ends_the_stream_with_what_went_wrong():
    client = create_app(MemoryBus(fail_with(TookTooLong("too long"), after=1))).test_client()
    first, last, rest = client.post("/stream", json=BODY).data.split(b"\n\n")
    assert (first, last, rest) == (b'data: ["x",[["hi","x"]]]', b"data: too long", b"")


def test_a_failure_leaves_one_line_in_the_log(client, caplog):
    caplog.set_level("INFO")
    client.post("/stream", json={})
    client.get("/generate")
    assert [record.getMessage() for record in caplog.records] == [
        "failed: POST /stream invalid_request 400 task -",
        "failed: GET /generate invalid_request 400 task -",
    ]


def test_a_text_is_counted_and_shown_in_tokens(client):
    assert client.post("/tokenize", json={"text": "你好"}).data == b'{"tokens":[],"len":2}'
    response = client.post("/tokenize", json={"text": "你好", "return_tokens": True})
    assert response.get_data(as_text=True) == '{"tokens":["你","好"],"len":2}'


def test_a_text_that_is_none_is_refused_in_json(client):
    response = client.post("/tokenize", json={"text": 5})
    assert response.status_code == 400
    assert response.json["error"]["message"] == "text: must be a string, got 5"


def test_tokens_that_never_came_are_no_answer():
    def ends(task):
        yield Finished()

    client = create_app(MemoryBus(ends)).test_client()
    assert client.post("/tokenize", json={"text": "a"}).status_code == 502


def test_an_interrupt_is_always_fine_and_names_the_caller_of_the_streams(client, bus):
    client.post("/stream", json=BODY)
    for body in (None, {}, {"id": "t"}):
        response = client.post("/interrupt", json=body) if body is not None else client.post("/interrupt")
        assert (response.status_code, response.data) == (200, b'{"message":"OK","success":true}')
    caller = bus.tasks[0].caller
    assert bus.interrupts == [(caller, None), (caller, None), (caller, "t")]


def test_an_interrupt_that_is_not_understood_stops_nothing(client, bus):
    assert client.post("/interrupt", json={"id": 5}).status_code == 400
    assert bus.interrupts == []


def test_a_stream_tells_the_id_by_which_it_can_be_interrupted(client, bus):
    response = client.post("/stream", json=BODY)
    assert response.headers["X-Task-Id"] == bus.tasks[0].task_id


@pytest.mark.parametrize("path", ["/", *STREAMS, "/tokenize", "/interrupt"])
def test_pages_of_every_origin_may_ask(client, path):
    origin = {"Origin": "http://example.org"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    leave = client.options(path, headers=origin | asked)
    assert leave.status_code == 200
    assert leave.headers.getlist("Access-Control-Allow-Origin") == ["*"]
    assert "POST" in leave.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in leave.headers["Access-Control-Allow-Headers"]
    for response in (client.get(path, headers=origin), client.post(path, data=b"{", headers=origin)):
        assert response.headers.getlist("Access-Control-Allow-Origin") == ["*"]


def test_other_paths_are_for_pages_of_our_own(client):
    for path in ("/chat", "/tasks/chat", "/v1/chat/completions", "/healthz"):
        assert "Access-Control-Allow-Origin" not in client.options(path).headers


def test_the_start_is_as_it_was(client):
    response = client.get("/")
    assert (response.status_code, response.data) == (200, b'{"message":"Server started","success":true}')


def test_a_body_may_come_without_its_type(client):
    """As from a page that leaves the type to the browser, which then says text/plain."""
    for content_type in (None, "text/plain", "application/json"):
        response = client.post("/stream", data=json.dumps(BODY), content_type=content_type)
        assert events(response)[-1][0] == "你好 😀\n"


def test_a_wrong_method_and_a_missing_key_are_told_in_the_protocols_form():
    client = create_app(MemoryBus(), Limits(api_keys=("secret",))).test_client()
    refused = client.post("/stream", json=BODY)
    assert refused.status_code == 401
    assert refused.data.startswith(b"data: send an API key")
    assert refused.headers["Access-Control-Allow-Origin"] == "*"
    allowed = {"Authorization": "Bearer secret"}
    assert client.get("/stream", headers=allowed).status_code == 405
    assert client.head("/generate?query=hi", headers=allowed).status_code == 405
    assert events(client.post("/stream", json=BODY, headers=allowed))


def test_a_first_event_comes_before_the_first_token(monkeypatch):
    monkeypatch.setattr("gateway.pace.FIRST_EVENT_SECONDS", 0.1)
    bus = MemoryBus(wait_for_ever)
    with create_app(bus).test_client().post("/stream", json=BODY | {"answer_prefix": "So"}) as response:
        assert next(response.iter_encoded()) == b'data: ["So",[["hi","So"]]]\n\n'
        assert bus.active == 1
    assert bus.active == 0


def test_two_clients_at_once_get_their_own_answers():
    meeting = threading.Barrier(2)

    def echo(task):
        meeting.wait(10)
        yield Token(0, (1,), task.input.messages[0].content.upper())
        yield Finished()

    app = create_app(MemoryBus(echo))
    told = {}

    def ask(name):
        told[name] = events(app.test_client().post("/stream", json={"query": name}))[-1][0]

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert told == {"one": "ONE", "two": "TWO"}
