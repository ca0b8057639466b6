"""OpenAI's own client against the embedded model, over real processes."""

import json
import shutil
import tempfile
from pathlib import Path

import jsonschema
import openai
import pytest

from tests.end_to_end.running import ANSWER_SECONDS, ROOT, Server

MESSAGES = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "size": {"type": "integer", "maximum": 9}},
    "required": ["colour", "size"],
    "additionalProperties": False,
}
SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}


@pytest.fixture(scope="module")
def server():
    """One server for all of these tests, as none of them changes it."""
    folder = Path(tempfile.mkdtemp(prefix="lectern-"))
    database = f"sqlite:///{folder}/none.db"
    flags = ("--model", f"demo={ROOT / 'models' / 'demo'}", "--database", database)
    running = Server(flags, folder, {})
    yield running.wait_ready()
    running.end()
    shutil.rmtree(folder)


@pytest.fixture
def client(server):
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", timeout=ANSWER_SECONDS, max_retries=0
    ) as one:
        yield one


@pytest.fixture
def complete(client):
    """Ask for a chat completion; greedy and short unless told otherwise."""

    def ask(**options):
        defaults = {"model": "demo", "messages": MESSAGES, "temperature": 0, "max_tokens": 16}
        return client.chat.completions.create(**defaults | options)

    return ask


def test_a_chat_is_answered_whole_and_as_a_stream_with_the_same_text(complete):
    whole = complete()
    (choice,) = whole.choices
    assert (whole.object, whole.model, choice.message.role) == ("chat.completion", "demo", "assistant")
    assert choice.message.content.strip()
    assert choice.finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    with complete(stream=True, stream_options={"include_usage": True}) as stream:
        *chunks, last = stream
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason
    assert (last.choices, last.usage.completion_tokens) == ([], whole.usage.completion_tokens)


def test_the_clients_own_helper_puts_a_stream_together(client, complete):
    options = {"response_format": SCHEMA_FORMAT, "logprobs": True, "n": 2, "max_tokens": 64}
    defaults = {"model": "demo", "messages": MESSAGES, "temperature": 0}
    with client.chat.completions.stream(**defaults, **options) as stream:
        put_together = stream.get_final_completion().choices
    for streamed, whole in zip(put_together, complete(**options).choices, strict=True):
        assert streamed.message.content == whole.message.content
        assert [one.token for one in streamed.logprobs.content] == [
            one.token for one in whole.logprobs.content
        ]


def test_an_answer_can_be_sent_back_as_it_came(complete):
    first = complete().choices[0].message
    again = complete(
        messages=[*MESSAGES, first, {"role": "user", "content": [{"type": "text", "text": "more"}]}]
    )
    assert again.choices[0].message.content


def test_two_choices_are_told_apart_and_come_again_with_their_seed(complete):
    options = {"n": 2, "temperature": 1, "seed": 5, "max_tokens": 8}
    whole = complete(**options)
    assert [choice.index for choice in whole.choices] == [0, 1]
    texts = ["", ""]
    with complete(**options, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_log_probabilities_belong_to_the_text(complete):
    choice = complete(logprobs=True, top_logprobs=2, max_tokens=4).choices[0]
    told = choice.logprobs.content
    assert (
        bytes(byte for one in told for byte in one.bytes).decode().strip() == choice.message.content.strip()
    )
    for one in told:
        assert one.logprob <= 0
        assert len(one.top_logprobs) == 2
        assert one.logprob == pytest.approx(one.top_logprobs[0].logprob)  # greedy


def test_an_answer_keeps_to_its_schema_and_to_vllms_forms(complete):
    answer = complete(response_format=SCHEMA_FORMAT, max_tokens=64).choices[0]
    jsonschema.validate(json.loads(answer.message.content), SCHEMA)
    chosen = complete(extra_body={"structured_outputs": {"choice": ["yes", "no"]}}).choices[0]
    assert chosen.message.content in ("yes", "no")


def test_a_number_of_tokens_can_be_forced(complete):
    usage = complete(max_tokens=24, extra_body={"ignore_eos": True}).usage
    assert usage.completion_tokens == 24


def test_the_model_is_listed(client):
    (model,) = client.models.list()
    assert (model.id, model.owned_by) == ("demo", "lectern")
    assert client.models.retrieve("demo") == model


def test_mistakes_are_the_clients_own_exceptions(complete):
    with pytest.raises(openai.NotFoundError) as unknown:
        complete(model="third")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        complete(temperature=9)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as long:
        complete(messages=[{"role": "user", "content": "word " * 20_000}])
    assert long.value.code == "context_length_exceeded"
