import json
import math

import pytest
from msgspec.structs import replace

from contract import (
    GREEDY,
    Chat,
    ChatMessage,
    Choices,
    Ebnf,
    Failed,
    Finished,
    FoundRow,
    InvalidRequest,
    JsonObject,
    JsonSchema,
    OutputInvalid,
    Regex,
    RowsAnswer,
    Sampling,
    Task,
    Token,
    TokenLogprob,
    UnknownTask,
    Wish,
)
from gateway import Limits
from gateway.dialects import native
from gateway.turn import Turn
from tests.gateway.memory_bus import BOOKS_TEXT, ROWS, TIMINGS, USAGE

HELLO = [{"role": "user", "content": "hello"}]
LIMITS = Limits(messages=4, prompt_characters=100)


def chat_body(**fields):
    return json.dumps({"messages": HELLO} | fields).encode()


def refusal_of(body):
    with pytest.raises(InvalidRequest) as refusal:
        native.parse_chat(body, LIMITS)
    return str(refusal.value)


BAD_VALUES = [
    ("temperature", 9, "temperature: must be <= 2, got 9"),
    ("temperature", -0.1, "temperature: must be >= 0, got -0.1"),
    ("temperature", 2**70, f"temperature: must be <= 2, got {2**70}"),
    ("temperature", "1", 'temperature: must be a number, got "1"'),
    ("temperature", True, "temperature: must be a number, got true"),
    ("temperature", None, "temperature: must be a number, got null"),
    ("top_p", 0, "top_p: must be > 0, got 0"),
    ("top_p", 1.1, "top_p: must be <= 1, got 1.1"),
    ("top_p", [], "top_p: must be a number, got []"),
    ("top_k", -1, "top_k: must be >= 0, got -1"),
    ("top_k", 1_000_001, "top_k: must be <= 1000000, got 1000001"),
    ("top_k", 1.5, "top_k: must be an integer, got 1.5"),
    ("top_k", "5", 'top_k: must be an integer, got "5"'),
    ("min_p", -1, "min_p: must be >= 0, got -1"),
    ("min_p", 2, "min_p: must be <= 1, got 2"),
    ("min_p", {}, "min_p: must be a number, got {}"),
    ("repetition_penalty", 0, "repetition_penalty: must be > 0, got 0"),
    ("repetition_penalty", 11, "repetition_penalty: must be <= 10, got 11"),
    ("repetition_penalty", "x", 'repetition_penalty: must be a number, got "x"'),
    ("presence_penalty", -3, "presence_penalty: must be >= -2, got -3"),
    ("presence_penalty", 3, "presence_penalty: must be <= 2, got 3"),
    ("frequency_penalty", -3, "frequency_penalty: must be >= -2, got -3"),
    ("frequency_penalty", 3, "frequency_penalty: must be <= 2, got 3"),
    ("frequency_penalty", False, "frequency_penalty: must be a number, got false"),
    ("max_tokens", 0, "max_tokens: must be >= 1, got 0"),
    ("max_tokens", 2**40, f"max_tokens: must be <= 1048576, got {2**40}"),
    ("max_tokens", "x", 'max_tokens: must be an integer or null, got "x"'),
    ("max_tokens", 1.5, "max_tokens: must be an integer or null, got 1.5"),
    ("stop", 3, "stop: must be a list, got 3"),
    ("stop", "", "stop[0]: must have at least 1 characters, got 0"),
    ("stop", ["a", ""], "stop[1]: must have at least 1 characters, got 0"),
    ("stop", ["a", 1], "stop[1]: must be a string, got 1"),
    ("stop", ["a"] * 17, "stop: must have at most 16 entries, got 17"),
    ("stop", "a" * 257, "stop[0]: must have at most 256 characters, got 257"),
    ("logit_bias", [], "logit_bias: must be an object, got []"),
    ("logit_bias", {"x": 1}, 'logit_bias: each key must be an integer, got {"x":1}'),
    ("logit_bias", {"-1": 1}, 'logit_bias: each key must be >= 0, got {"-1":1}'),
    ("logit_bias", {"5": 101}, 'logit_bias: each value must be <= 100, got {"5":101}'),
    ("logit_bias", {"5": "x"}, 'logit_bias: each value must be a number, got {"5":"x"}'),
    ("min_tokens", -1, "min_tokens: must be >= 0, got -1"),
    ("min_tokens", None, "min_tokens: must be an integer, got null"),
    ("ignore_end", 1, "ignore_end: must be true or false, got 1"),
    ("choices", 0, "choices: must be >= 1, got 0"),
    ("choices", 129, "choices: must be <= 128, got 129"),
    ("logprobs", -1, "logprobs: must be >= 0, got -1"),
    ("logprobs", 21, "logprobs: must be <= 20, got 21"),
    ("logprobs", True, "logprobs: must be an integer or null, got true"),
    ("form", "json", 'form: must be an object or null, got "json"'),
    ("form", {"pattern": "a"}, "form.type: is required"),
    ("form", {"type": 3}, "form.type: must be a string, got 3"),
    (
        "form",
        {"type": "rows", "values": [], "at_most": 1},
        'form.type: must be one of json_schema, json_object, regex, ebnf, choices, got "rows"',
    ),
    ("form", {"type": "regex"}, "form.pattern: is required"),
    ("form", {"type": "regex", "pattern": "a", "flags": "i"}, "form.flags: unknown field"),
    ("form", {"type": "choices", "texts": ["a", 1]}, "form.texts[1]: must be a string, got 1"),
    ("form", {"type": "json_schema", "schema": 3}, "form.schema: must be a string, got 3"),
    ("seed", -1, "seed: must be >= 0, got -1"),
    ("seed", 2**63, f"seed: must be <= {2**63 - 1}, got {2**63}"),
    ("seed", "x", 'seed: must be an integer or null, got "x"'),
    ("model", "", "model: must have at least 1 characters, got 0"),
    ("model", "m" * 201, "model: must have at most 200 characters, got 201"),
    ("model", 3, "model: must be a string or null, got 3"),
    ("stream", 1, "stream: must be true or false, got 1"),
    ("stream", "true", 'stream: must be true or false, got "true"'),
    ("n", 2, "n: unknown field"),
    ("Temperature", 1, "Temperature: unknown field"),
    ("messages", None, "messages: must be a list, got null"),
    ("messages", "hi", 'messages: must be a list, got "hi"'),
    ("messages", [], "messages: must have at least 1 entries, got 0"),
    ("messages", HELLO * 5, "messages: must have at most 4 entries, got 5"),
    ("messages", [3], "messages[0]: must be an object, got 3"),
    ("messages", [{"content": "x"}], "messages[0].role: is required"),
    ("messages", [{"role": "user"}], "messages[0].content: is required"),
    ("messages", [{"role": "user", "content": None}], "messages[0].content: must be a string, got null"),
    ("messages", [HELLO[0] | {"name": "x"}], "messages[0].name: unknown field"),
    (
        "messages",
        [{"role": "tool", "content": "x"}],
        'messages[0].role: must be one of system, user, assistant, got "tool"',
    ),
    (
        "messages",
        [*HELLO, {"role": "assistant", "content": "x"}],
        'messages[1].role: the last message must be the user\'s, got "assistant"',
    ),
    ("messages", [{"role": "user", "content": " \n"}], "messages[0].content: must not be blank"),
    (
        "messages",
        [{"role": "user", "content": "x" * 101}],
        "messages: must hold at most 100 characters together, got 101",
    ),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_VALUES)
def test_a_bad_value_is_refused_by_field_rule_and_value(field, value, message):
    assert refusal_of(chat_body(**{field: value})) == message


def test_every_sampling_field_is_in_the_table_of_bad_values():
    assert set(Sampling.__struct_fields__) <= {field for field, _, _ in BAD_VALUES}


@pytest.mark.parametrize(("body", "message"), [
    (b"{}", "messages: is required"),
    (b"[]", "body: must be an object, got []"),
    (b"null", "body: must be an object, got null"),
    (b'"hi"', 'body: must be an object, got "hi"'),
    (b'{"messages": NaN}', "body: must be JSON: invalid character (byte 13)"),
])  # fmt: skip
def test_a_body_that_is_no_chat_is_refused(body, message):
    assert refusal_of(body) == message


def test_a_chat_without_options_gets_the_defaults():
    task, wants_stream = native.parse_chat(chat_body(), LIMITS)
    assert (task.name, task.model, wants_stream) == ("chat", None, False)
    assert task.input == Chat((ChatMessage("user", "hello"),))
    assert task.sampling == Sampling()


def test_every_option_of_a_chat_arrives():
    options = {
        "temperature": 0, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1,
        "presence_penalty": -1, "frequency_penalty": 1, "max_tokens": 9, "seed": 2**63 - 1,
        "stop": ["。", "\n"], "logit_bias": {"5": -1, "77": 100}, "min_tokens": 3, "ignore_end": True,
        "choices": 4, "logprobs": 0,
    }  # fmt: skip
    task, wants_stream = native.parse_chat(chat_body(model="demo", stream=True, **options), LIMITS)
    assert (task.model, wants_stream) == ("demo", True)
    meant = {"stop": ("。", "\n"), "logit_bias": {5: -1.0, 77: 100.0}}
    assert task.sampling == Sampling(**options | meant)


def test_a_single_stop_string_is_a_list_of_one():
    assert native.parse_chat(chat_body(stop="。"), LIMITS)[0].sampling.stop == ("。",)


@pytest.mark.parametrize(
    ("form", "meant"),
    [
        ({"type": "json_schema", "schema": {"enum": [None, "é"]}}, JsonSchema('{"enum":[null,"é"]}')),
        ({"type": "json_schema", "schema": '{"type": "null"}'}, JsonSchema('{"type": "null"}')),
        ({"type": "json_object"}, JsonObject()),
        ({"type": "regex", "pattern": "[ab]+"}, Regex("[ab]+")),
        ({"type": "ebnf", "grammar": 'root ::= "a"'}, Ebnf('root ::= "a"')),
        ({"type": "choices", "texts": ["yes", "no"]}, Choices(("yes", "no"))),
        (None, None),
    ],
)
def test_a_chat_may_ask_for_every_form_but_rows(form, meant):
    task, _ = native.parse_chat(chat_body(form=form), LIMITS)
    assert task.input == Chat((ChatMessage("user", "hello"),), meant)


@pytest.mark.parametrize(("fields", "message"), [
    ({}, "wish: is required"),
    ({"wish": 3}, "wish: must be a string, got 3"),
    ({"wish": " \t"}, "wish: must not be blank"),
    ({"wish": "x" * 4001}, "wish: must have at most 4000 characters, got 4001"),
    ({"wish": "x", "temperature": 0.5}, "temperature: unknown field"),
    ({"wish": "x", "stream": None}, "stream: must be true or false, got null"),
])  # fmt: skip
def test_a_bad_wish_is_refused_by_field_and_rule(fields, message):
    with pytest.raises(InvalidRequest) as refusal:
        native.parse_wish("book_retrieval", json.dumps(fields).encode(), LIMITS)
    assert str(refusal.value) == message


@pytest.mark.parametrize("name", ["a b", "书", "../x", "x" * 201, "a\n"])
def test_a_name_that_no_task_can_have_is_unknown(name):
    with pytest.raises(UnknownTask):
        native.parse_wish(name, b'{"wish": "x"}', LIMITS)


def test_a_wish_becomes_a_greedy_task():
    task, wants_stream = native.parse_wish(
        "book_retrieval", '{"wish": "书", "stream": true}'.encode(), LIMITS
    )
    assert (task.name, task.input, task.sampling) == ("book_retrieval", Wish("书"), GREEDY)
    assert wants_stream


CHAT = Task("chat", Chat((ChatMessage("user", "hi"),)), task_id="c1")
WISH = Task("book_retrieval", Wish("calculus"), task_id="w1")
USAGE_JSON = '"usage":{"prompt_tokens":7,"cached_tokens":2,"completion_tokens":3,"steps":4}'
TIMINGS_JSON = '"timings":{"first_token_seconds":0.5,"total_seconds":1.5}'
ROWS_JSON = (
    '"rows":[{"key":11,"id":11,"title":"微积分之旅：从初级到高级"},'
    '{"key":14,"id":14,"title":"微积分的世界：函数与变化"}],"considered_rows":25'
)


def test_a_chat_answer_is_this_json():
    answer = native.render_answer(CHAT, [Turn("你好 😀\n")], Finished(("length",), USAGE, TIMINGS))
    head = '{"task_id":"c1","text":"你好 😀\\n","stop_reason":"length",'
    assert answer.decode() == head + USAGE_JSON + "," + TIMINGS_JSON + "}"


#: Bytes of half a character, and a special token that cannot come.
HALF = TokenLogprob(
    5, b"\xf0\x9f", -0.5, (TokenLogprob(5, b"\xf0\x9f", -0.5), TokenLogprob(0, b"", -math.inf))
)
HALF_JSON = (
    '{"id":5,"token":"\N{REPLACEMENT CHARACTER}","logprob":-0.5,"bytes":[240,159],"top":['
    '{"id":5,"token":"\N{REPLACEMENT CHARACTER}","logprob":-0.5,"bytes":[240,159]},'
    '{"id":0,"token":"","logprob":-9999.0,"bytes":[]}]}'
)


def test_several_choices_and_their_logprobs_stand_beside_the_first():
    task = replace(CHAT, sampling=Sampling(choices=2, logprobs=2))
    turns, finished = [Turn("a", (HALF,)), Turn("b")], Finished(("length", "stop"), USAGE, TIMINGS)
    first, second = (
        f'"text":"a","stop_reason":"length","logprobs":[{HALF_JSON}]',
        '"text":"b","stop_reason":"stop","logprobs":[]',
    )
    assert native.render_answer(task, turns, finished).decode() == (
        f'{{"task_id":"c1",{first},"choices":[{{{first}}},{{{second}}}],{USAGE_JSON},{TIMINGS_JSON}}}'
    )


def test_events_of_several_choices_name_theirs():
    task = replace(CHAT, sampling=Sampling(choices=2, logprobs=2))
    assert native.render_event(task, Token(3, (5,), "", 1, (HALF,))).decode() == (
        f'event: token\ndata: {{"index":3,"text":"","choice":1,"logprobs":[{HALF_JSON}]}}\n\n'
    )
    assert native.render_event(task, Token(3, (), "", 1)) == b""
    ending = native.render_event(task, Finished(("length", "stop"), USAGE, TIMINGS)).decode()
    head = '"stop_reason":"length","choices":[{"stop_reason":"length"},{"stop_reason":"stop"}]'
    assert ending == f'event: finished\ndata: {{"task_id":"c1",{head},{USAGE_JSON},{TIMINGS_JSON}}}\n\n'


def test_a_template_answer_is_this_json():
    finished = Finished(("stop",), USAGE, TIMINGS, RowsAnswer(ROWS, 25))
    answer = native.render_answer(WISH, [Turn(BOOKS_TEXT)], finished)
    head = '{"task_id":"w1","answer":' + BOOKS_TEXT.replace('": ', '":').replace(", ", ",")
    text = ',"text":' + json.dumps(BOOKS_TEXT, ensure_ascii=False)
    assert answer.decode() == f"{head}{text},{ROWS_JSON},{USAGE_JSON},{TIMINGS_JSON}}}"


def test_events_are_these_bytes():
    assert native.render_event(CHAT, Token(3, (1,), "行\n😀")).decode() == (
        'event: token\ndata: {"index":3,"text":"行\\n😀"}\n\n'
    )
    assert native.render_event(CHAT, Token(3, (1,), "")) == b""
    assert native.render_event(CHAT, Finished(("stop",), USAGE, TIMINGS)).decode() == (
        f'event: finished\ndata: {{"task_id":"c1","stop_reason":"stop",{USAGE_JSON},{TIMINGS_JSON}}}\n\n'
    )
    finished = Finished(("stop",), USAGE, TIMINGS, RowsAnswer(ROWS, 25))
    assert native.render_event(WISH, finished).decode() == (
        f'event: finished\ndata: {{"task_id":"w1",{ROWS_JSON},{USAGE_JSON},{TIMINGS_JSON}}}\n\n'
    )
    assert native.render_event(CHAT, Failed("worker_lost", "gone", 503, True, 2.0)).decode() == (
        'event: failed\ndata: {"error":{"code":"worker_lost","message":"gone","retryable":true}}\n\n'
    )


def test_a_column_of_the_name_key_does_not_hide_the_primary_key():
    finished = Finished(answer=RowsAnswer((FoundRow(7, {"key": "cis", "title": "Ode"}),), 1))
    assert json.loads(native.render_answer(WISH, [Turn("{}")], finished))["rows"] == [
        {"key": 7, "title": "Ode"}
    ]


@pytest.mark.parametrize(
    ("text", "answer"), [("[]", RowsAnswer((), 0)), ("{", RowsAnswer((), 0)), ("{}", None)]
)
def test_a_template_answer_that_is_not_what_was_promised_is_an_output_error(text, answer):
    with pytest.raises(OutputInvalid):
        native.render_answer(WISH, [Turn(text)], Finished(answer=answer))
