"""The pure side of my-chatglm2's protocol: fields to a task, events to bytes."""

import json

import pytest

from contract import (
    MAX_TOKENS_LIMIT,
    Chat,
    ChatMessage,
    Failed,
    Finished,
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    ServingError,
    Token,
    Tokenize,
    TokensAnswer,
    Trimmed,
)
from gateway.dialects import chatglm2
from gateway.dialects.chatglm2 import Answer
from gateway.limits import Limits

LIMITS = Limits(prompt_characters=1000, messages=20)
HISTORY = [["你好", "你好！"], ["再见", "再见！"]]


def parse(**fields):
    return chatglm2.parse_chat({"query": "谁？", **fields}, LIMITS, "me")


def refused(**fields):
    with pytest.raises(InvalidRequest) as error:
        parse(**fields)
    return str(error.value)


def said(asked):
    return [(message.role, message.content) for message in asked.task.input.messages]


def test_a_query_alone_has_the_old_servers_defaults():
    asked = parse()
    assert asked.task.name == "chat"
    assert asked.task.caller == "me"
    assert asked.task.model is None
    assert asked.task.input == Chat((ChatMessage("user", "谁？"),), None, True, 2048)
    assert (asked.task.sampling.temperature, asked.task.sampling.top_p) == (1.0, 0.7)


def test_history_and_prefix_become_turns():
    asked = parse(history=HISTORY, answer_prefix="我是")
    assert said(asked) == [
        ("user", "你好"),
        ("assistant", "你好！"),
        ("user", "再见"),
        ("assistant", "再见！"),
        ("user", "谁？"),
        ("assistant", "我是"),
    ]


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        (1, 1),
        (4096, 4096),
        ("4096", 4096),
        ("0001", 1),
        (10**30, MAX_TOKENS_LIMIT),
        ("9" * 5000, MAX_TOKENS_LIMIT),
        (MAX_TOKENS_LIMIT + 1, MAX_TOKENS_LIMIT),
    ],
)
def test_max_length_may_be_text_and_is_never_too_large(sent, limit):
    assert parse(max_length=sent).task.input.total_tokens == limit


@pytest.mark.parametrize("length", [0, -1, "0", "", "-1", "1.5", " 7", "x", "٣", True, None, 1.5, [], "1e3"])
def test_max_length_that_is_no_length_is_refused_by_name(length):
    assert refused(max_length=length).startswith("max_length: ")


def test_top_p_0_takes_the_most_probable_token():
    sampling = parse(top_p=0, temperature=2).task.sampling
    assert sampling.temperature == 0
    sampling = parse(top_p=1, temperature=2).task.sampling
    assert (sampling.temperature, sampling.top_p) == (2, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"query": ""}, "query: must not be blank"),
        ({"query": " \n"}, "query: must not be blank"),
        ({"query": 5}, "query: must be a string, got 5"),
        ({"top_p": 1.1}, "top_p: must be <= 1, got 1.1"),
        ({"top_p": "0.5"}, 'top_p: must be a number, got "0.5"'),
        ({"temperature": -1}, "temperature: must be >= 0, got -1"),
        ({"temperature": 2.1}, "temperature: must be <= 2, got 2.1"),
        ({"history": "x"}, 'history: must be a list, got "x"'),
        ({"history": [["a"]]}, "history[0]: "),
        ({"history": [["a", "b", "c"]]}, "history[0]: "),
        ({"history": [["a", None]]}, "history[0][1]: must be a string, got null"),
        ({"answer_prefix": None}, "answer_prefix: must be a string, got null"),
        ({"stream": True}, "stream: unknown field"),
        ({"top_k": 3}, "top_k: unknown field"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, words):
    assert refused(**fields).startswith(words)


@pytest.mark.parametrize("fields", [[], "x", None, 5])
def test_what_is_no_object_is_refused(fields):
    with pytest.raises(InvalidRequest, match="body: must be an object"):
        chatglm2.parse_chat(fields, LIMITS, "me")


def test_a_query_with_more_characters_than_any_prompt_is_too_large():
    with pytest.raises(PromptTooLong):
        parse(query="x" * 900, answer_prefix="y" * 101)
    assert parse(query="x" * 900, answer_prefix="y" * 100)


def test_pairs_beyond_the_gateways_limits_are_dropped_oldest_first():
    pairs = [[str(number), "x"] for number in range(100)]
    assert parse(history=pairs).history == tuple((str(number), "x") for number in range(91, 100))
    assert len(parse(history=pairs, answer_prefix="a").task.input.messages) == 20
    assert parse(history=[["a" * 600, ""], ["b" * 600, ""]]).history == (("b" * 600, ""),)


def generate(*arguments):
    fields = chatglm2.decode_address([("query", "谁？"), *arguments], LIMITS)
    return chatglm2.parse_generate(fields, LIMITS, "me", is_text=True), chatglm2.wants_stream(fields)


def test_every_value_of_an_address_is_text():
    asked, wants_stream = generate(
        ("max_length", "4096"),
        ("history", json.dumps(HISTORY)),
        ("top_p", "0.5"),
        ("temperature", "2"),
        ("stream", "true"),
        ("answer_prefix", "12"),
    )
    assert asked.history == (("你好", "你好！"), ("再见", "再见！"))
    assert asked.task.input.total_tokens == 4096
    assert (asked.task.sampling.temperature, asked.task.sampling.top_p) == (2.0, 0.5)
    assert asked.answer_prefix == "12"
    assert wants_stream


@pytest.mark.parametrize(
    ("text", "wanted"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)]
)
def test_stream_in_an_address_is_a_word(text, wanted):
    assert generate(("stream", text))[1] == wanted


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (("history", "[["), "history: must be JSON"),
        (("history", ""), "history: must be a JSON list, got nothing"),
        (("history", "[" * 100), "history: JSON must nest at most 32 levels deep"),
        (("history", '["a"]'), r"history\[0\]: "),
        (("temperature", "warm"), "temperature: must be a number"),
        (("temperature", "nan"), "temperature: "),
        (("temperature", "inf"), "temperature: "),
        (("top_p", "2"), "top_p: must be <= 1"),
        (("stream", "maybe"), "stream: must be true or false"),
        (("query", "again"), "query: must be given once"),
        (("nonsense", "1"), "nonsense: unknown field"),
    ],
)
def test_a_bad_address_is_refused_by_name(argument, words):
    with pytest.raises(InvalidRequest, match=f"^{words}"):
        generate(argument)


def test_an_event_of_stream_is_the_whole_answer_and_the_history_with_it():
    asked = parse(history=HISTORY, answer_prefix="我")
    answer = Answer(asked)
    assert answer.render_pair() == (
        'data: ["我",[["你好","你好！"],["再见","再见！"],["谁？","我"]]]\n\n'.encode()
    )
    assert not answer.take(Trimmed(2))
    assert not answer.take(Token(0, (1,), ""))
    assert answer.take(Token(1, (2,), "是\n"))
    assert not answer.take(Finished())
    assert answer.render_pair() == 'data: ["我是\\n",[["再见","再见！"],["谁？","我是\\n"]]]\n\n'.encode()
    assert answer.render_response() == 'data: {"response":"我是\\n"}\n\n'.encode()


def test_a_failure_is_one_line_of_text():
    assert chatglm2.render_failed_event(Failed.from_error(PromptTooLong("long"))) == (
        b"data: query too large.\n\n"
    )
    for error, text in ((Overloaded("full\r\n\n now"), b"full now"), (ServingError("x"), b"x")):
        assert chatglm2.render_failed(Failed.from_error(error)) == text


def test_a_text_is_a_task_of_its_own():
    task, wants_tokens = chatglm2.parse_tokenize(b'{"text": "ab"}', LIMITS)
    assert (task.name, task.input, task.caller, wants_tokens) == ("tokenize", Tokenize("ab"), None, False)
    finished = Finished(answer=TokensAnswer(("a", "b")))
    assert chatglm2.render_tokens(finished, False) == b'{"tokens":[],"len":2}'
    assert chatglm2.render_tokens(finished, True) == b'{"tokens":["a","b"],"len":2}'


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"text": 1}', b'{"text": "a", "more": 1}', b'{"text": "%s"}' % (b"x" * 1001)],
)
def test_a_text_that_is_none_is_refused(body):
    with pytest.raises(InvalidRequest, match=r"^(body|text|more): "):
        chatglm2.parse_tokenize(body, LIMITS)


@pytest.mark.parametrize(
    ("body", "task_id"),
    [(b"", None), (b" \n", None), (b"{}", None), (b'{"id":null}', None), (b'{"id":"t"}', "t")],
)
def test_an_interrupt_names_one_task_or_none(body, task_id):
    assert chatglm2.parse_interrupt(body, LIMITS) == task_id


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"id": 5}', b'{"di": "t"}'])
def test_an_interrupt_that_is_not_understood_stops_nothing(body):
    with pytest.raises(InvalidRequest):
        chatglm2.parse_interrupt(body, LIMITS)
