"""A model behind a Yuan-2.0 inference server on loopback."""

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
    OutputError,
    Overloaded,
    PromptTooLong,
    TookTooLong,
    UpstreamDown,
)
from tests.workers.upstream.reading import HELLO, ask, eventually, read, text_of, within
from tests.workers.upstream.servers import SILENCE, HostileServer, YuanServer, status
from workers.upstream import yuan
from workers.upstream.opening import open_upstream
from workers.upstream.reach import Reach


@pytest.fixture
def server():
    return YuanServer(lambda prompt: f"You▂said:<n>{prompt.removesuffix('<sep>')}<eod>")


@pytest.fixture
def model(server):
    with server.running() as url:
        yield yuan_model(url)


def yuan_model(url, **reach):
    return open_upstream(f"yuan:{url}", "", Reach(**reach))


def test_an_answer_comes_whole(model, server):
    tokens = [token for token in ask(model, temperature=0.5) if not token.is_empty]
    assert [token.text for token in tokens] == ["You said:\nhello"]
    (body,) = server.bodies
    assert body["ques_list"] == [{"id": "0", "ques": "hello<sep>"}]
    assert (model.card.name, model.card.context_tokens) == ("yuan", 8192)


def test_requests_go_out_one_at_a_time_in_the_order_they_came(model, server):
    questions = [f"q{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda text: text_of(ask(model, messages=[ChatMessage("user", text)])), questions)
        assert list(answers) == [f"You said:\n{text}" for text in questions]
    assert server.most_at_once == 1


def test_who_waits_is_kept_informed_and_may_leave(model, server):
    server.gate.clear()
    first, second = ask(model), ask(model)
    while not server.entered.is_set():
        assert next(first).is_empty
    for _ in range(3):
        assert next(second).is_empty
    started = time.monotonic()
    second.close()
    first.close()
    assert time.monotonic() - started < 0.5
    server.gate.set()
    assert text_of(ask(model)) == "You said:\nhello"
    assert len(server.bodies) == 2


def test_too_many_waiting_are_sent_away(model, server, monkeypatch):
    monkeypatch.setattr(yuan, "MOST_WAITING", 2)
    model = open_upstream("yuan:" + model._line.url, "", Reach())
    server.gate.clear()
    waiting = [ask(model) for _ in range(3)]
    for answer in waiting:
        next(answer)
    with pytest.raises(Overloaded, match="one at a time") as refused:
        next(ask(model))
    assert refused.value.retry_after_seconds > 0
    for answer in waiting:
        answer.close()


def test_choices_are_asked_for_one_after_the_other(model, server):
    texts, completion = read(ask(model, choices=3, seed=4))
    assert texts == ["You said:\nhello"] * 3
    assert completion.reasons == ("stop",) * 3
    assert [body["random_seed"] for body in server.bodies] == [4, 5, 6]


def test_a_stop_string_cuts_here(model):
    assert text_of(ask(model, stop=("said",))) == "You "


def test_what_it_cannot_be_told_is_refused_by_name(model, server):
    given = {
        "min_p": 0.5,
        "repetition_penalty": 1.5,
        "presence_penalty": 1,
        "frequency_penalty": 1,
        "logit_bias": {1: 2.0},
        "min_tokens": 1,
        "ignore_end": True,
        "logprobs": 0,
    }
    assert given.keys() == set(model.card.capabilities.cannot_sample)
    for name, value in given.items():
        with pytest.raises(CannotDo, match=rf"^{name}: "):
            next(ask(model, **{name: value}))
    with pytest.raises(CannotDo, match=r"^messages: "):
        next(ask(model, messages=[*HELLO, ChatMessage("assistant", "well,")]))
    with pytest.raises(CannotDo, match=r"^text: "):
        model.split_tokens("a")
    assert server.bodies == []


def test_failures_of_the_server_are_told(model, server):
    def fail(prompt):
        raise RuntimeError("CUDA out of memory")

    server.answer = fail
    with pytest.raises(OutputError, match="CUDA out of memory"):
        text_of(ask(model))
    with pytest.raises(PromptTooLong, match="8192"):
        text_of(ask(model, messages=[ChatMessage("user", "字" * 9000)]))
    server.answer = lambda prompt: "well"
    with pytest.raises(InvalidRequest, match="top_p"):
        text_of(ask(model, top_k=5, top_p=0.5))
    assert text_of(ask(model)) == "well"


def test_a_form_is_asked_for_in_words_and_checked(model, server):
    answers = iter(["I think it is<n>yes", "yes"])
    server.answer = lambda prompt: next(answers)
    assert text_of(ask(model, Choices(("yes", "no")))) == "yes"
    assert "That is wrong" in server.bodies[1]["ques_list"][0]["ques"]


def test_rows_are_those_of_the_database(model, server):
    server.answer = lambda prompt: '{"1": "光学"}<eod>'
    assert text_of(ask(model, ChooseRows(("光学", "力学"), 2))) == '{"1": "光学"}'


def test_a_dead_server_is_told_and_found_again(server):
    with HostileServer([status(502)]) as hostile:
        model = yuan_model(hostile.url)
        with pytest.raises(UpstreamDown):
            text_of(ask(model))
        with server.running() as url:
            model = yuan_model(url)
            assert text_of(ask(model)) == "You said:\nhello"


def test_an_answer_that_is_too_long_in_coming_is_given_up():
    with HostileServer([SILENCE]) as hostile:
        with pytest.raises(TookTooLong):
            text_of(ask(yuan_model(hostile.url, first_token_seconds=0.3)))
        within(2.0, hostile.hung_up)
        assert len(hostile.requests) == 1  # it still works on the first


def test_no_threads_are_left(model):
    before = threading.active_count()
    for _ in range(3):
        text_of(ask(model))
    eventually(lambda: threading.active_count() <= before + 1)


def test_prompts_are_counted_as_they_are_written(model):
    short, long = [ChatMessage("user", "hi")], [ChatMessage("user", "字" * 100)]
    assert 2 < model.count_tokens(short) < 100 < model.count_tokens(long)
