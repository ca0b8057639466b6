"""A model behind OpenAI's API: a real gateway, and one that does everything wrong."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract import (
    CannotDo,
    ChatMessage,
    Choices,
    ChooseRows,
    InvalidRequest,
    JsonObject,
    OutputError,
    OutputInvalid,
    Overloaded,
    PromptTooLong,
    TookTooLong,
    UnknownModel,
    UpstreamDown,
)
from tests.workers.upstream.reading import HELLO, ask, eventually, openai_model, read, text_of, within
from tests.workers.upstream.servers import (
    DEADLINE_SECONDS,
    DONE,
    SILENCE,
    STREAM_HEAD,
    HostileServer,
    chunk,
    lectern_over,
    status,
)
from workers.scripted import ScriptedModel
from workers.upstream.circuit import FAILURES_TO_OPEN
from workers.upstream.kinds import KINDS, PLAIN
from workers.upstream.line import PAUSES_SECONDS

WHOLE = [STREAM_HEAD, chunk("two "), chunk("words"), chunk(reason="stop"), DONE]

#: How often a request is sent that nothing comes of.
TRIES = 1 + len(PAUSES_SECONDS)


def test_an_answer_comes_through_a_real_gateway():
    with lectern_over(ScriptedModel("你好 😀, the quick brown fox")) as (url, bus):
        model = openai_model(f"{url}/v1", KINDS["lectern"])
        (text,), completion = read(ask(model, seed=5, top_k=3, temperature=0.25))
        assert text == "你好 😀, the quick brown fox"
        assert (completion.reason, completion.usage.completion_tokens > 5) == ("stop", True)
        assert 0 < completion.timings.first_token_seconds <= completion.timings.total_seconds
        (task,) = bus.tasks
        assert (task.sampling.seed, task.sampling.top_k, task.sampling.temperature) == (5, 3, 0.25)


def test_it_streams():
    with lectern_over(ScriptedModel("one two three", pause_seconds=0.05)) as (url, _):
        tokens = [token.text for token in ask(openai_model(f"{url}/v1")) if not token.is_empty]
    assert tokens == ["one", " two", " thre", "e"]


def test_connections_are_used_again():
    with lectern_over(ScriptedModel("one")) as (url, _):
        model = openai_model(f"{url}/v1")
        for _ in range(3):
            assert text_of(ask(model)) == "one"
        eventually(lambda: threading.active_count() < 20)


def test_many_at_once_each_get_their_own():
    with lectern_over(ScriptedModel(lambda messages: messages[-1].content * 3)) as (url, _):
        model = openai_model(f"{url}/v1")
        questions = [f"q{number} " for number in range(24)]
        with ThreadPoolExecutor(12) as pool:
            answers = pool.map(
                lambda text: text_of(ask(model, messages=[ChatMessage("user", text)])), questions
            )
            assert list(answers) == [text * 3 for text in questions]


@pytest.mark.parametrize("kind", [KINDS["lectern"], KINDS["library"]], ids=lambda kind: kind.name)
def test_choices_come_in_one_request_or_in_several(kind):
    with lectern_over(ScriptedModel("one two")) as (url, bus):
        texts, completion = read(ask(openai_model(f"{url}/v1", kind), choices=3, seed=8))
    assert texts == ["one two"] * 3
    assert completion.reasons == ("stop",) * 3
    seeds = [task.sampling.seed for task in bus.tasks]
    assert sorted(seeds) == ([8] if kind.has_choices else [8, 9, 10])


def test_closing_the_answer_closes_the_connection_at_once():
    with HostileServer([STREAM_HEAD, chunk("one"), SILENCE], [SILENCE]) as server:
        model = openai_model(server.url)
        for is_before_the_head in (False, True):
            answer = ask(model)
            while next(answer).is_empty and not is_before_the_head:
                pass
            eventually(lambda: server.asked.is_set())
            started = time.monotonic()
            answer.close()
            assert time.monotonic() - started < 0.5
            within(2.0, server.hung_up)
            server.hung_up.clear()
            server.asked.clear()


def test_while_nothing_comes_empty_tokens_do():
    with HostileServer([SILENCE]) as server:
        answer = ask(openai_model(server.url))
        started = time.monotonic()
        for _ in range(3):
            assert next(answer).is_empty
        assert time.monotonic() - started < 2
        answer.close()


def test_leaving_a_gateway_stops_its_work():
    with lectern_over(ScriptedModel("on and on " * 500, pause_seconds=0.01)) as (url, bus):
        answer = ask(openai_model(f"{url}/v1"))
        while next(answer).is_empty:
            pass
        answer.close()
        eventually(lambda: bus.left_early == 1)


FAILURES = {
    "refused": ([HostileServer.RESET], UpstreamDown, "connection"),
    "closed": ([], UpstreamDown, "connection"),
    "half a head": ([b"HTTP/1.1 200"], UpstreamDown, "broke off"),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], UpstreamDown, "connection"),
    "500": ([status(500, b"oops")], UpstreamDown, "500"),
    "503 with words": ([status(503, b'{"error": {"message": "loading"}}')], UpstreamDown, "loading"),
    "redirect": ([status(302, Location="http://127.0.0.1:9/")], UpstreamDown, "302"),
    "an empty stream": ([STREAM_HEAD], UpstreamDown, "broke off"),
    "only an end": ([STREAM_HEAD, DONE], UpstreamDown, "broke off"),
    "a page": ([status(200, b"<html>hello</html>")], UpstreamDown, "broke off"),
    "garbage": ([STREAM_HEAD, b"data: <html>\n\n"], OutputError, "not OpenAI's"),
    "busy": ([status(429, b'{"error": {"message": "slow down"}}')], Overloaded, "slow down"),
    "wrong key": ([status(401, b'{"error": {"message": "secret-key is wrong"}}')], UpstreamDown, "key"),
}


@pytest.mark.parametrize(("script", "error", "words"), FAILURES.values(), ids=FAILURES)
def test_an_upstream_that_fails_before_the_first_token_is_tried_again(script, error, words):
    with HostileServer(script) as server:
        with pytest.raises(error, match=words) as failed:
            read(ask(openai_model(server.url, api_key="secret-key")))
        assert len(server.requests) in (TRIES, 0)  # what never was a request is not counted
        assert "secret-key" not in str(failed.value) or words != "key"
        assert failed.value.retryable
    with HostileServer(script, WHOLE) as server:
        assert text_of(ask(openai_model(server.url))) == "two words"


REFUSALS = {
    "bad field": (400, b'{"error": {"message": "no", "param": "top_p"}}', InvalidRequest, "^top_p: .*no"),
    "no words": (400, b"", InvalidRequest, "cannot do that"),
    "FastAPI's": (422, b'{"detail": "wrong field"}', InvalidRequest, "wrong field"),
    "cannot": (422, b'{"error": {"message": "no form", "code": "cannot_do"}}', CannotDo, "no form"),
    "too long": (400, b'{"error": {"message": "x", "code": "context_length_exceeded"}}', PromptTooLong, "x"),
    "vLLM's": (400, b'{"error": {"message": "maximum context length is 5"}}', PromptTooLong, "is 5"),
    "llama.cpp's": (
        400,
        b'{"error": {"type": "exceed_context_size_error", "message": "n"}}',
        PromptTooLong,
        "n",
    ),
    "no such model": (404, b'{"error": {"message": "no model x"}}', UnknownModel, "no model x"),
}


@pytest.mark.parametrize(("code", "body", "error", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_request_that_is_refused_is_not_sent_again(code, body, error, words):
    with HostileServer([status(code, body)]) as server:
        model = openai_model(server.url)
        for _ in range(FAILURES_TO_OPEN + 1):  # and says nothing against the upstream
            with pytest.raises(error, match=words):
                read(ask(model))
        assert len(server.requests) == FAILURES_TO_OPEN + 1


HALVES = {
    "closed": [],
    "reset": [HostileServer.RESET],
    "an end without a reason": [DONE],
    "garbage": [b"data: {\n\n"],
    "an error": [b'data: {"error": {"message": "out of memory"}}\n\n'],
}


@pytest.mark.parametrize("rest", HALVES.values(), ids=HALVES)
def test_an_answer_that_breaks_off_fails_and_is_not_begun_again(rest):
    with HostileServer([STREAM_HEAD, chunk("half "), *rest]) as server:
        answer = ask(openai_model(server.url))
        texts = []
        with pytest.raises((UpstreamDown, OutputError)):
            texts.extend(token.text for token in answer)
        assert "".join(texts) in ("half ", "")  # a reset may overtake what was sent before it
        assert len(server.requests) == 1 or rest == [HostileServer.RESET]


def test_a_first_token_that_is_too_long_in_coming_is_given_up():
    with HostileServer([SILENCE]) as server:
        with pytest.raises(TookTooLong, match=r"no token for 0\.3 seconds"):
            read(ask(openai_model(server.url, first_token_seconds=0.3)))
        within(2.0, server.hung_up)
        assert len(server.requests) == 1


def test_comments_are_no_tokens():
    script = [STREAM_HEAD, *[b": ping\n\n"] * 5, SILENCE]
    with HostileServer(script) as server, pytest.raises(TookTooLong):
        read(ask(openai_model(server.url, first_token_seconds=0.4)))


def test_a_pause_that_is_too_long_ends_the_answer():
    script = [STREAM_HEAD, chunk("one"), SILENCE]
    with HostileServer(script) as server, pytest.raises(TookTooLong, match=r"0\.3 seconds"):
        read(ask(openai_model(server.url, pause_seconds=0.3)))


def test_a_dead_upstream_is_left_alone_and_found_again(caplog):
    with HostileServer([status(500)]) as server, caplog.at_level(logging.INFO):
        model = openai_model(server.url)
        while len(server.requests) < FAILURES_TO_OPEN:
            with pytest.raises(UpstreamDown):
                read(ask(model))
        with pytest.raises(UpstreamDown, match="tried again soon") as refused:
            read(ask(model))
        assert 0 < refused.value.retry_after_seconds <= 1
        assert len(server.requests) == FAILURES_TO_OPEN
        server.scripts[:] = [WHOLE]
        eventually(lambda: answers(model))
        assert text_of(ask(model)) == "two words"
    assert "does not answer: requests to it fail at once" in caplog.text
    assert "answers again" in caplog.text


def answers(model):
    try:
        return text_of(ask(model)) == "two words"
    except UpstreamDown:
        return False


def test_one_request_probes_while_the_others_wait():
    with HostileServer(*[[status(500)]] * FAILURES_TO_OPEN, [SILENCE]) as server:
        model = openai_model(server.url)
        while len(server.requests) < FAILURES_TO_OPEN:
            with pytest.raises(UpstreamDown):
                read(ask(model))
        probe = begun(model)
        with pytest.raises(UpstreamDown, match="tried again soon"):
            read(ask(model))
        assert len(server.requests) == FAILURES_TO_OPEN + 1
        probe.close()  # nobody waits for it any more: the next may probe
        server.scripts[:] = [WHOLE]
        assert text_of(ask(model)) == "two words"


def begun(model):
    """Ask until it is let through; its request then waits for an answer."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        probe = ask(model)
        try:
            next(probe)
            next(probe)
        except UpstreamDown:
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)
        else:
            return probe


def test_what_a_server_cannot_be_told_is_refused_by_name():
    model = openai_model("http://127.0.0.1:9/v1", PLAIN)
    for name, value in {"top_k": 5, "min_p": 0.5, "min_tokens": 3, "ignore_end": True}.items():
        with pytest.raises(CannotDo, match=rf"^{name}: "):
            next(ask(model, **{name: value}))
    with pytest.raises(CannotDo, match=r"^messages: "):
        next(ask(model, messages=[*HELLO, ChatMessage("assistant", "well,")]))


def test_an_address_that_does_not_answer_is_down():
    with HostileServer(WHOLE) as server:
        pass
    with pytest.raises(UpstreamDown, match="refused"):
        read(ask(openai_model(server.url, connect_seconds=0.5)))


ROWS = ChooseRows(("光学", "力学"), 2, none_allowed=False)


def saying(*texts):
    return [[STREAM_HEAD, chunk(text), chunk(reason="stop"), DONE] for text in texts]


def test_a_form_that_only_words_can_ask_for_is_asked_for_until_it_is_right():
    with HostileServer(*saying("Sure! yes", "Yes", "yes")) as server:
        model = openai_model(server.url, PLAIN)
        assert text_of(ask(model, Choices(("yes", "no")), seed=3)) == "yes"
        first, second, _ = server.requests
        assert "one of these lines" in first["messages"][-1]["content"]
        assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
        assert "That is wrong: it is not right from 'Sure! yes' on" in second["messages"][-1]["content"]


def test_rows_are_asked_for_as_a_schema_and_checked():
    with HostileServer(*saying('{"1": "热学"}', '```json\n{"1":"力学"}\n```')) as server:
        assert text_of(ask(openai_model(server.url), ROWS)) == '{"1": "力学"}'
        wanted = server.requests[0]["structured_outputs"]["json"]
        assert wanted["properties"]["1"]["enum"] == ["光学", "力学"]
        assert '"热学" is not one of the texts' in server.requests[1]["messages"][-1]["content"]


def test_a_model_that_never_gets_it_right_is_told_of():
    with HostileServer(*saying("I choose optics")) as server:
        with pytest.raises(OutputInvalid, match="within 3 tries: it is not JSON"):
            read(ask(openai_model(server.url), ROWS))
        assert len(server.requests) == 3


def test_a_server_that_refuses_the_form_is_asked_in_words():
    script = status(400, b'{"error": {"message": "no such schema feature"}}')
    with HostileServer([script], *saying('{"1": "光学"}')) as server:
        assert text_of(ask(openai_model(server.url), ROWS)) == '{"1": "光学"}'
        assert "structured_outputs" not in server.requests[1]


def test_a_server_that_keeps_forms_is_passed_on_as_it_speaks_and_checked():
    with HostileServer([STREAM_HEAD, chunk('{"a": '), chunk("5}"), chunk(reason="stop"), DONE]) as server:
        answer = ask(openai_model(server.url), JsonObject())
        assert [token.text for token in answer if not token.is_empty] == ['{"a": ', "5}"]
        assert server.requests[0]["structured_outputs"] == {"json_object": True}
    with HostileServer(*saying("{")) as server, pytest.raises(OutputInvalid, match="not of the form"):
        read(ask(openai_model(server.url), JsonObject()))


def test_an_answer_in_a_form_that_is_cut_off_is_told():
    script = [STREAM_HEAD, chunk('{"1"'), chunk(reason="length"), DONE]
    with HostileServer(script) as server, pytest.raises(OutputInvalid, match="cut off"):
        read(ask(openai_model(server.url), ROWS))


def test_tokens_are_counted_by_the_server_or_estimated():
    with HostileServer([status(200, b'{"count": 17}')]) as server:
        assert openai_model(server.url).count_tokens(HELLO) == 17
        with pytest.raises(CannotDo, match="does not tell its tokens"):
            openai_model(server.url).split_tokens("a")
    with HostileServer([status(500)]) as server:
        assert openai_model(server.url).count_tokens(HELLO) >= 5
    assert openai_model("http://127.0.0.1:9/v1", PLAIN).count_tokens([ChatMessage("user", "你好")]) >= 4


def test_llama_cpp_tells_its_tokens():
    pieces = (
        b'{"tokens": [{"id": 1, "piece": "a b"}, {"id": 2, "piece": [240, 159]}, {"id": 3, "piece": ""}]}'
    )
    with HostileServer([status(200, pieces)]) as server:
        assert openai_model(server.url, KINDS["llamacpp"]).split_tokens("x") == ("a b", "�", "")
    for wrong in (b"[]", b'{"tokens": [5]}', b'{"tokens": [{"piece": [999]}]}'):
        with HostileServer([status(200, wrong)]) as server, pytest.raises(OutputError):
            openai_model(server.url, KINDS["llamacpp"]).split_tokens("x")
    template, tokens = status(200, b'{"prompt": "<s>hello"}'), status(200, b'{"tokens": [1, 2, 3]}')
    with HostileServer([template], [tokens]) as server:
        assert openai_model(server.url, KINDS["llamacpp"]).count_tokens(HELLO) == 3


def test_a_server_that_says_the_beginning_again_is_heard_from_there_on():
    begun = [*HELLO, ChatMessage("assistant", "Hello, ")]
    with HostileServer([STREAM_HEAD, chunk("Hel"), chunk("lo, my"), chunk(" name", "stop"), DONE]) as server:
        assert text_of(ask(openai_model(server.url, KINDS["llamacpp"]), messages=begun)) == "my name"
        assert text_of(ask(openai_model(server.url, KINDS["vllm"]), messages=begun)) == "Hello, my name"
        assert server.requests[1]["continue_final_message"] is True
