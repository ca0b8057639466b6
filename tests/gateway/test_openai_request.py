import json

import pytest

from contract import (
    Chat,
    ChatMessage,
    Choices,
    Ebnf,
    InvalidRequest,
    JsonObject,
    JsonSchema,
    Regex,
    Sampling,
)
from gateway import Limits
from gateway.dialects.openai_request import parse_chat

HELLO = [{"role": "user", "content": "hello"}]
LIMITS = Limits(messages=4, prompt_characters=100)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "born": {"const": None}}}
SCHEMA_TEXT = json.dumps(SCHEMA, separators=(",", ":"))


def parse(**fields):
    return parse_chat(json.dumps({"messages": HELLO} | fields).encode(), LIMITS)


def refusal_of(**fields):
    with pytest.raises(InvalidRequest) as refusal:
        parse(**fields)
    return str(refusal.value)


def part(kind="text", **fields):
    return [{"role": "user", "content": [{"type": kind, **fields}]}]


def message(**fields):
    return [{"role": "assistant", "content": "x"} | fields, *HELLO]


BAD_VALUES = [
    ("messages", "hi", 'messages: must be a list, got "hi"'),
    ("messages", [], "messages: must have at least 1 entries, got 0"),
    ("messages", HELLO * 5, "messages: must have at most 4 entries, got 5"),
    ("messages", [{"role": "user"}], "messages[0].content: is required"),
    ("messages", [{"role": "user", "content": None}], "messages[0].content: is required"),
    ("messages", [{"role": "user", "content": 3}], "messages[0].content: must be a string or a list, got 3"),
    ("messages", [{"role": "user", "content": " "}], "messages[0].content: must not be blank"),
    (
        "messages",
        [{"role": "tool", "content": "x"}],
        'messages[0].role: must be one of system, developer, user, assistant, got "tool"',
    ),
    ("messages", message(tool_calls=[{"id": "1"}]), "messages[0].tool_calls: unknown field"),
    ("messages", message(name="x"), "messages[0].name: unknown field"),
    ("messages", message(audio={"id": "1"}), "messages[0].audio: unknown field"),
    (
        "messages",
        part("image_url", image_url={"url": "https://example.org/a.png"}),
        'messages[0].content[0].type: must be one of text, got "image_url"',
    ),
    ("messages", part("input_audio"), 'messages[0].content[0].type: must be one of text, got "input_audio"'),
    ("messages", part(text=3), "messages[0].content[0].text: must be a string, got 3"),
    ("messages", part(text="x" * 101), "messages: must hold at most 100 characters together, got 101"),
    ("messages", message()[:1], 'messages[0].role: the last message must be the user\'s, got "assistant"'),
    ("model", 3, "model: must be a string or null, got 3"),
    ("model", "", "model: must have at least 1 characters, got 0"),
    ("stream", "true", 'stream: must be true or false, got "true"'),
    ("stream_options", {"include_usage": True}, "stream_options: is for streams only, set stream to true"),
    ("stream_options", {"chunk": 1}, "stream_options.chunk: unknown field"),
    ("temperature", 2.1, "temperature: must be <= 2, got 2.1"),
    ("temperature", "1", 'temperature: must be a number, got "1"'),
    ("top_p", 0, "top_p: must be > 0, got 0"),
    ("n", 0, "n: must be >= 1, got 0"),
    ("n", 129, "n: must be <= 128, got 129"),
    ("n", "2", 'n: must be an integer, got "2"'),
    ("stop", [""], "stop[0]: must have at least 1 characters, got 0"),
    ("stop", 3, "stop: must be a list, got 3"),
    ("max_tokens", 0, "max_tokens: must be >= 1, got 0"),
    ("max_completion_tokens", 0, "max_completion_tokens: must be >= 1, got 0"),
    ("seed", -1, "seed: must be >= 0, got -1"),
    ("seed", 1.5, "seed: must be an integer or null, got 1.5"),
    ("presence_penalty", 3, "presence_penalty: must be <= 2, got 3"),
    ("frequency_penalty", -3, "frequency_penalty: must be >= -2, got -3"),
    ("logit_bias", {"a": 1}, 'logit_bias: each key must be an integer, got {"a":1}'),
    ("logit_bias", {"1": 101}, 'logit_bias: each value must be <= 100, got {"1":101}'),
    ("logprobs", 5, "logprobs: must be true or false, got 5"),
    ("top_logprobs", 21, "top_logprobs: must be <= 20, got 21"),
    ("top_logprobs", True, "top_logprobs: must be an integer or null, got true"),
    ("top_logprobs", 5, "top_logprobs: needs logprobs to be true"),
    ("top_k", -2, "top_k: must be >= 0, got -2"),
    ("min_p", 2, "min_p: must be <= 1, got 2"),
    ("repetition_penalty", 0, "repetition_penalty: must be > 0, got 0"),
    ("min_tokens", -1, "min_tokens: must be >= 0, got -1"),
    ("ignore_eos", 1, "ignore_eos: must be true or false, got 1"),
    (
        "response_format",
        {"type": "xml"},
        'response_format.type: must be one of text, json_object, json_schema, got "xml"',
    ),
    ("response_format", {}, "response_format.type: is required"),
    ("response_format", {"type": "json_schema"}, "response_format.json_schema: is required"),
    (
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "x"}},
        "response_format.json_schema.schema: is required",
    ),
    (
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "x", "schema": 3}},
        "response_format.json_schema.schema: must be an object, got 3",
    ),
    (
        "structured_outputs",
        {},
        "structured_outputs: must hold one of json, regex, choice, grammar, json_object, got 0",
    ),
    (
        "structured_outputs",
        {"regex": "a", "choice": ["a"]},
        "structured_outputs: must hold one of json, regex, choice, grammar, json_object, got 2",
    ),
    (
        "structured_outputs",
        {"regex": "a", "whitespace_pattern": " "},
        "structured_outputs.whitespace_pattern: unknown field",
    ),
    ("structured_outputs", {"choice": []}, "structured_outputs.choice: must have at least 1 entries, got 0"),
    ("store", True, "store: must be false here, got true"),
    ("store", 0, "store: must be false here, got 0"),
    ("service_tier", "flex", 'service_tier: must be "auto" or "default" here, got "flex"'),
    ("modalities", ["text", "audio"], 'modalities: must be ["text"] here, got ["text","audio"]'),
    ("tools", [{"type": "function"}], 'tools: must be [] here, got [{"type":"function"}]'),
    ("tool_choice", "required", 'tool_choice: must be "none" or "auto" here, got "required"'),
    ("parallel_tool_calls", "no", 'parallel_tool_calls: must be true or false here, got "no"'),
    ("user", 3, "user: must be a string or null, got 3"),
    ("metadata", {"a": 1}, 'metadata: each value must be a string, got {"a":1}'),
    ("reasoning_effort", "low", "reasoning_effort: unknown field"),
    ("guided_json", {}, "guided_json: unknown field"),
    ("Temperature", 1, "Temperature: unknown field"),
    ("choices", 2, "choices: unknown field"),
    ("ignore_end", True, "ignore_end: unknown field"),
    ("wants_logprobs", True, "wants_logprobs: unknown field"),
]


@pytest.mark.parametrize(("field", "value", "refusal"), BAD_VALUES)
def test_a_bad_value_is_refused_under_the_name_that_the_caller_used(field, value, refusal):
    assert refusal_of(**{field: value}) == refusal


@pytest.mark.parametrize("body", [b"[]", b"null", b'"hi"'])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(InvalidRequest, match="body: must be an object"):
        parse_chat(body, LIMITS)


def test_a_chat_without_options_gets_openais_defaults():
    task, wants_stream, wants_usage = parse()
    assert (task.name, task.model, wants_stream, wants_usage) == ("chat", None, False, False)
    assert task.input == Chat((ChatMessage("user", "hello"),))
    assert task.sampling == Sampling(temperature=1.0)


OPTIONS = {
    "model": "m", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "top_p": 0.5,
    "n": 2, "stop": "\n", "max_tokens": 5, "max_completion_tokens": 5, "seed": 3, "presence_penalty": 1,
    "frequency_penalty": -1, "logit_bias": {"7": -100}, "logprobs": True, "top_logprobs": 3, "top_k": 4,
    "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2, "ignore_eos": True,
    "response_format": {"type": "json_object"}, "user": "u", "metadata": {"a": "b"}, "store": False,
    "service_tier": "auto", "safety_identifier": "s", "prompt_cache_key": "k", "parallel_tool_calls": True,
    "tools": [], "tool_choice": "none", "modalities": ["text"],
}  # fmt: skip


def test_every_option_arrives():
    task, wants_stream, wants_usage = parse(**OPTIONS)
    assert (task.model, wants_stream, wants_usage) == ("m", True, True)
    assert task.input.form == JsonObject()
    assert task.sampling == Sampling(
        temperature=0, top_p=0.5, choices=2, stop=("\n",), max_tokens=5, seed=3, presence_penalty=1,
        frequency_penalty=-1, logit_bias={7: -100}, logprobs=3, top_k=4, min_p=0.1, repetition_penalty=1.1,
        min_tokens=2, ignore_end=True,
    )  # fmt: skip


def test_null_means_not_given():
    assert parse(**dict.fromkeys(OPTIONS), structured_outputs=None)[0].sampling == parse()[0].sampling


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({"top_k": -1}, Sampling(1.0)),
        ({"max_tokens": 5}, Sampling(1.0, max_tokens=5)),
        ({"max_completion_tokens": 5}, Sampling(1.0, max_tokens=5)),
        ({"logprobs": True}, Sampling(1.0, logprobs=0)),
        ({"logprobs": False, "top_logprobs": 0}, Sampling(1.0)),
        ({"stop": ["a", "b"]}, Sampling(1.0, stop=("a", "b"))),
        ({"stop": []}, Sampling(1.0)),
    ],
)
def test_an_option_means(fields, sampling):
    assert parse(**fields)[0].sampling == sampling


def test_two_limits_that_differ_are_refused():
    assert refusal_of(max_tokens=5, max_completion_tokens=6) == (
        "max_tokens: must be max_completion_tokens (6) or absent, got 5"
    )


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"role": "system", "content": "x"}, ChatMessage("system", "x")),
        ({"role": "developer", "content": "x"}, ChatMessage("system", "x")),
        ({"role": "assistant", "content": "x", "refusal": None}, ChatMessage("assistant", "x")),
        (
            {"role": "assistant", "content": "", "tool_calls": [], "annotations": []},
            ChatMessage("assistant", ""),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ChatMessage("user", "a\nb"),
        ),
    ],
)
def test_a_message_means(sent, meant):
    assert parse(messages=[sent, *HELLO])[0].input.messages[0] == meant


NAMED = {"name": "person", "description": "someone", "strict": True, "schema": SCHEMA}


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object", "json_schema": None}}, JsonObject()),
        ({"response_format": {"type": "json_schema", "json_schema": NAMED}}, JsonSchema(SCHEMA_TEXT)),
        ({"structured_outputs": {"json": SCHEMA}}, JsonSchema(SCHEMA_TEXT)),
        ({"structured_outputs": {"json": SCHEMA_TEXT, "regex": None}}, JsonSchema(SCHEMA_TEXT)),
        ({"structured_outputs": {"regex": "[ab]+"}}, Regex("[ab]+")),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, Choices(("yes", "no"))),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, Ebnf('root ::= "a"')),
        ({"structured_outputs": {"json_object": True}}, JsonObject()),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}}, Regex("a")),
    ],
)
def test_a_form_means(fields, form):
    assert parse(**fields)[0].input.form == form


def test_two_forms_are_refused():
    refusal = refusal_of(response_format={"type": "json_object"}, structured_outputs={"regex": "a"})
    assert refusal == "structured_outputs: cannot be combined with response_format"
