import json
import math

import pytest

from contract import (
    CannotDo,
    Chat,
    ChatMessage,
    Failed,
    Finished,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    PromptTooLong,
    Sampling,
    ServingError,
    Task,
    Token,
    TokenLogprob,
    TookTooLong,
    Unauthorized,
    UnknownModel,
    UnknownRoute,
)
from gateway.dialects import openai_answer
from gateway.dialects.openai_answer import Answering
from gateway.turn import Turn
from tests.gateway.memory_bus import TIMINGS, USAGE

HEAD = '"id":"chatcmpl-c1","object":"chat.completion.chunk","created":1700000000,"model":"demo"'
USAGE_JSON = (
    '{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":2}}'
)

#: Bytes of half a character, and beside it a special token that cannot come.
HALF = TokenLogprob(5, b"\xf0\x9f", -0.5, (TokenLogprob(0, b"", -math.inf),))
HALF_JSON = (
    '{"content":[{"token":"\N{REPLACEMENT CHARACTER}","logprob":-0.5,"bytes":[240,159],'
    '"top_logprobs":[{"token":"","logprob":-9999.0,"bytes":[]}]}],"refusal":null}'
)


def answering(wants_usage=False, **sampling):
    chat = Chat((ChatMessage("user", "hi"),))
    task = Task("chat", chat, Sampling(**sampling), "demo", "c1")
    return Answering(task, 1_700_000_000, wants_usage)


def finished(*reasons):
    return Finished(reasons, USAGE, TIMINGS)


def chunk(choices, usage=""):
    return f'data: {{{HEAD},"choices":[{choices}]{usage}}}\n\n'


def choice(index=0, delta="{}", logprobs="null", reason="null"):
    return f'{{"index":{index},"delta":{delta},"logprobs":{logprobs},"finish_reason":{reason}}}'


def test_a_whole_answer_is_this_json():
    answer = openai_answer.render_answer(answering(), [Turn("你好 😀\n")], finished("length"))
    assert answer.decode() == (
        '{"id":"chatcmpl-c1","object":"chat.completion","created":1700000000,"model":"demo","choices":['
        '{"index":0,"message":{"role":"assistant","content":"你好 😀\\n","refusal":null},"logprobs":null,'
        f'"finish_reason":"length"}}],"usage":{USAGE_JSON}}}'
    )


def test_every_choice_has_its_place_its_reason_and_its_logprobs():
    asked = answering(choices=2, logprobs=1)
    body = openai_answer.render_answer(asked, [Turn("a", (HALF,)), Turn("b")], finished("length", "stop"))
    first, second = json.loads(body)["choices"]
    assert (first["index"], first["message"]["content"], first["finish_reason"]) == (0, "a", "length")
    assert first["logprobs"] == json.loads(HALF_JSON)
    assert (second["index"], second["message"]["content"], second["finish_reason"]) == (1, "b", "stop")
    assert second["logprobs"] == {"content": [], "refusal": None}


def test_a_stream_opens_with_the_role_of_every_choice():
    delta = '{"role":"assistant","content":"","refusal":null}'
    opening = openai_answer.render_opening(answering(choices=2)).decode()
    assert opening == chunk(choice(0, delta)) + chunk(choice(1, delta))


def test_a_token_is_a_chunk_unless_it_has_nothing_to_show():
    def render(*token, **sampling):
        return openai_answer.render_event(answering(**sampling), Token(*token)).decode()

    assert render(3, (1,), "行\n😀", 1) == chunk(choice(1, '{"content":"行\\n😀"}'))
    assert render(3, (1,), "") == ""
    assert render(3, (5,), "", 0, (HALF,), logprobs=1) == chunk(choice(0, '{"content":""}', HALF_JSON))


def test_a_stream_ends_with_the_reason_of_every_choice_and_done():
    ending = openai_answer.render_event(answering(choices=2), finished("stop", "length")).decode()
    reasons = chunk(choice(0, reason='"stop"')) + chunk(choice(1, reason='"length"'))
    assert ending == reasons + "data: [DONE]\n\n"


def test_usage_comes_in_a_chunk_of_its_own_and_is_null_before():
    asked = answering(wants_usage=True)
    null = ',"usage":null'
    assert openai_answer.render_event(asked, Token(0, (1,), "a")).decode() == chunk(
        choice(0, '{"content":"a"}'), null
    )
    assert openai_answer.render_event(asked, finished("stop")).decode() == (
        chunk(choice(reason='"stop"'), null) + chunk("", f',"usage":{USAGE_JSON}') + "data: [DONE]\n\n"
    )


def test_a_failure_in_a_stream_is_an_error_and_nothing_is_done():
    failed = Failed.from_error(TookTooLong("too long"))
    assert openai_answer.render_event(answering(), failed).decode() == (
        'data: {"error":{"message":"too long","type":"server_error","param":null,"code":"took_too_long"}}\n\n'
    )


@pytest.mark.parametrize(
    ("error", "kind", "parameter", "code"),
    [
        (InvalidRequest("top_p: must be > 0"), "invalid_request_error", "top_p", "invalid_request"),
        (
            InvalidRequest("messages[1].content[0].type: x"),
            "invalid_request_error",
            "messages[1].content[0].type",
            "invalid_request",
        ),
        (InvalidRequest("body: must be JSON"), "invalid_request_error", None, "invalid_request"),
        (InvalidRequest("Content-Type: must be"), "invalid_request_error", None, "invalid_request"),
        (InvalidRequest("the prompt is empty"), "invalid_request_error", None, "invalid_request"),
        (PromptTooLong("9 of 8"), "invalid_request_error", "messages", "context_length_exceeded"),
        (UnknownModel("none"), "invalid_request_error", "model", "model_not_found"),
        (Unauthorized("who?"), "invalid_request_error", None, "invalid_api_key"),
        (UnknownRoute("where?"), "invalid_request_error", None, "unknown_url"),
        (MethodNotAllowed("how?"), "invalid_request_error", None, "method_not_supported"),
        (CannotDo("this model cannot: x"), "invalid_request_error", None, "cannot_do"),
        (Overloaded("full"), "server_error", None, "overloaded"),
        (ServingError("oops"), "server_error", None, "internal_error"),
    ],
)
def test_an_error_has_openais_words(error, kind, parameter, code):
    assert openai_answer.render_failed(Failed.from_error(error)) == {
        "error": {"message": str(error), "type": kind, "param": parameter, "code": code}
    }
