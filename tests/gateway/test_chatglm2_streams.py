"""my-chatglm2's clients at a real gateway with a real worker: what they read from their sockets."""

import json
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from urllib.parse import quote

import pytest

import LLMkernel
from bus.service import BusService
from tests.gateway.test_with_the_bus import DEADLINE_SECONDS, eventually, gateway_on, is_ready
from workers.loop import WorkerLoop
from workers.scripted import ScriptedModel

#: Seconds after which the web client gives up waiting for its first event.
CLIENT_PATIENCE_SECONDS = 5.0


@contextmanager
def served(folder, model, gateways=1):
    """Run gateways and one worker for all of them; yields their ports."""
    endpoints = [f"ipc://{folder}/{number}.ipc" for number in range(gateways)]
    perform = partial(LLMkernel.perform, model=model, templates={}, database=None)
    with ExitStack() as stack:
        ports = [stack.enter_context(gateway_on([endpoint])) for endpoint in endpoints]
        loop = WorkerLoop(BusService(endpoints), model.card, ["chat", "tokenize"], perform, capacity=8)
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            eventually(lambda: all(is_ready(port) for port in ports))
            yield ports
        finally:
            loop.stop(0.0)
            thread.join(DEADLINE_SECONDS)


class Client:
    """One request over one socket, whose answer is read chunk by chunk as it is framed."""

    def __init__(self, port, path, fields=None, *, method="POST", address="127.0.0.1"):
        self._socket = socket.create_connection(
            ("127.0.0.1", port), DEADLINE_SECONDS, source_address=(address, 0)
        )
        body = b"" if fields is None else json.dumps(fields).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self._reader = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._reader.close()
        self._socket.close()

    def head(self):
        status = self._reader.readline().split()[1]
        lines = iter(self._reader.readline, b"\r\n")
        return int(status), {name.lower(): value.strip() for name, value in (x.split(b":", 1) for x in lines)}

    def chunks(self):
        """Yield each chunk's bytes up to the last, empty one."""
        while True:
            size = int(self._reader.readline(), 16)
            data = self._reader.read(size)
            assert self._reader.read(2) == b"\r\n"
            if not size:
                return
            yield data

    def events(self):
        """Take each chunk apart as the web client does."""
        status, headers = self.head()
        assert (status, headers[b"transfer-encoding"]) == (200, b"chunked")
        for chunk in self.chunks():
            assert chunk.startswith(b"data: ")
            assert chunk.endswith(b"\n\n")
            assert chunk.count(b"\n") == 2
            yield json.loads(chunk.removeprefix(b"data: "))

    def whole(self):
        status, headers = self.head()
        assert status == 200
        return self._reader.read(int(headers[b"content-length"])).decode()


def ask(port, path, fields=None, **options):
    with Client(port, path, fields, **options) as client:
        return list(client.events())


def interrupt(port, fields=None, **options):
    with Client(port, "/interrupt", fields, **options) as client:
        assert client.whole() == '{"message":"OK","success":true}'


def test_each_chunk_is_one_event_with_the_whole_answer_so_far(tmp_path):
    script = "你好 😀\nthe quick brown fox"
    with served(tmp_path, ScriptedModel(script, pause_seconds=0.05)) as (port,):
        told = ask(port, "/stream", {"query": "谁？", "history": [["a", "b"]], "answer_prefix": "你"})
        texts = [text for text, _ in told]
        assert texts[-1] == script
        assert len(texts) > 3
        assert all(late.startswith(early) for early, late in pairwise(texts))
        assert all(history == [["a", "b"], ["谁？", text]] for text, history in told)
        told = ask(port, f"/generate?query={quote('谁？')}&stream=true", method="GET")
        assert told[-1] == {"response": script}


def test_events_that_come_fast_keep_apart_and_the_last_is_whole(tmp_path):
    script = "word " * 200
    with (
        served(tmp_path, ScriptedModel(script)) as (port,),
        Client(port, "/stream", {"query": "hi"}) as client,
    ):
        arrived = [(time.monotonic(), text) for text, _ in client.events()]
    assert arrived[-1][1] == script
    assert arrived[-1][0] - arrived[-2][0] > 0.01


def test_the_first_event_comes_in_time_however_long_the_first_token_takes(tmp_path):
    model = ScriptedModel("late", pause_seconds=60.0)
    with served(tmp_path, model) as (port,):
        started = time.monotonic()
        with Client(port, "/stream", {"query": "hi", "answer_prefix": "So"}) as client:
            assert next(client.events()) == ["So", [["hi", "So"]]]
            assert time.monotonic() - started < CLIENT_PATIENCE_SECONDS


def test_a_client_that_leaves_stops_the_model(tmp_path):
    model = ScriptedModel("on and on " * 1000, pause_seconds=0.02)
    with served(tmp_path, model) as (port,):
        for count, path in enumerate(["/stream", "/generate"], start=1):
            with Client(port, path, {"query": "hi"}) as client:
                if path == "/stream":
                    next(client.events())
                eventually(lambda count=count: len(model.prompts) == count)
            eventually(lambda count=count: model.stopped_early == count)


def test_an_interrupt_at_one_gateway_ends_the_callers_streams_at_another_and_nobody_elses(tmp_path):
    model = ScriptedModel("on and on " * 1000, pause_seconds=0.02)
    with served(tmp_path, model, gateways=2) as (here, there), ExitStack() as stack:
        mine = stack.enter_context(Client(here, "/stream", {"query": "mine"}))
        others = stack.enter_context(Client(here, "/stream", {"query": "other"}, address="127.0.0.2"))
        my_events, other_events = mine.events(), others.events()
        first = next(my_events)
        next(other_events)
        interrupt(there)
        *_, (text, _) = [first, *my_events]  # up to the last chunk: the stream ends in order
        assert 0 < len(text) < 10_000
        eventually(lambda: model.stopped_early == 1)
        next(other_events)
        interrupt(there, address="127.0.0.2")
        list(other_events)
        eventually(lambda: model.stopped_early == 2)


def test_an_interrupt_may_name_one_stream(tmp_path):
    model = ScriptedModel("on and on " * 1000, pause_seconds=0.02)
    with served(tmp_path, model) as (port,), ExitStack() as stack:
        clients = [stack.enter_context(Client(port, "/stream", {"query": "hi"})) for _ in range(2)]
        heads = [client.head() for client in clients]
        chunks = [client.chunks() for client in clients]
        for each in chunks:
            next(each)
        interrupt(port, {"id": heads[1][1][b"x-task-id"].decode()})
        list(chunks[1])
        assert model.stopped_early == 1
        next(chunks[0])


def test_a_question_over_the_models_limit_is_one_plain_event(tmp_path):
    with served(tmp_path, ScriptedModel("short", context_tokens=64)) as (port,):
        for path, fields in (("/stream", {}), ("/generate", {"stream": True})):
            with Client(port, path, {"query": "long " * 64, "max_length": 4096, **fields}) as client:
                assert client.head()[0] == 200
                assert list(client.chunks()) == [b"data: query too large.\n\n"]


def test_old_turns_that_do_not_fit_are_left_out_of_prompt_and_event(tmp_path):
    model = ScriptedModel("short", context_tokens=64)
    history = [[f"question {number}", "four word answer here"] for number in range(20)]
    with served(tmp_path, model) as (port,):
        (*_, (text, told)) = ask(port, "/stream", {"query": "hi", "history": history, "max_length": "4096"})
        assert text == "short"
        *kept, last = told
        assert last == ["hi", "short"]
        assert 0 < len(kept) < 20
        assert kept == history[-len(kept) :]
        assert len(model.prompts[0]) == 2 * len(kept) + 1


def test_max_length_bounds_prompt_and_answer(tmp_path):
    with served(tmp_path, ScriptedModel("x " * 100)) as (port,):
        assert ask(port, "/stream", {"query": "hi", "max_length": 11})[-1][0] == "x" + " x" * 9


def test_two_clients_at_once_never_get_each_others_answers(tmp_path):
    model = ScriptedModel(lambda messages: messages[-1].content.upper() * 5, pause_seconds=0.02)
    with served(tmp_path, model) as (port,), ExitStack() as stack:
        names = [f"client {number} " for number in range(6)]
        clients = [stack.enter_context(Client(port, "/stream", {"query": name})) for name in names]
        for name, client in zip(names, clients, strict=True):
            for text, ((query, _),) in client.events():
                assert query == name
                assert (name.upper() * 5).startswith(text)
            assert text == name.upper() * 5


def test_a_text_is_split_by_the_model(tmp_path):
    with served(tmp_path, ScriptedModel()) as (port,):
        with Client(port, "/tokenize", {"text": "two words", "return_tokens": True}) as client:
            assert client.whole() == '{"tokens":["two"," word","s"],"len":3}'
        with Client(port, "/tokenize", {"text": "two words"}) as client:
            assert client.whole() == '{"tokens":[],"len":3}'


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_generate_is_whole_plain_text(tmp_path, method):
    with served(tmp_path, ScriptedModel("你好 😀")) as (port,):
        path, fields = ("/generate?query=hi", None) if method == "GET" else ("/generate", {"query": "hi"})
        with Client(port, path, fields, method=method) as client:
            assert client.whole() == "你好 😀"
