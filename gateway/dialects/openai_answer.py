"""The answers of OpenAI's chat API: one `chat.completion`, its chunks, and errors.

The forms are those of https://platform.openai.com/docs/api-reference/chat.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from contract import Event, Failed, Finished, StopReason, Task, Token, TokenLogprob, Trimmed, Usage
from gateway.dialects.logprobs import spell_token
from gateway.turn import Turn

#: The last event of a stream that went well.
DONE = b"data: [DONE]\n\n"

#: Our codes for which OpenAI's clients look under another name; every other code stays as it is.
CODES = {
    "prompt_too_long": "context_length_exceeded",
    "unknown_model": "model_not_found",
    "unauthorized": "invalid_api_key",
    "unknown_route": "unknown_url",
    "method_not_allowed": "method_not_supported",
}

#: The parameter that a code is always about.
PARAMETERS = {"prompt_too_long": "messages", "unknown_model": "model"}

#: How the message of an invalid request begins: the field that breaks a rule, or the body as a whole.
_FIELD = re.compile(r"(?!body:)(\w[\w.\[\]]*): ")


class Answering(NamedTuple):
    """What an answer needs beside the task's events: when it was asked, in seconds since 1970."""

    task: Task
    created: int
    wants_usage: bool = False


def render_answer(answering: Answering, turns: Sequence[Turn], finished: Finished) -> bytes:
    """Return the complete answer as JSON."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": turn.text, "refusal": None},
            "logprobs": _render_logprobs(answering, turn.logprobs),
            "finish_reason": reason,
        }
        for index, (turn, reason) in enumerate(zip(turns, finished.reasons, strict=True))
    ]
    heading = _heading(answering, "chat.completion")
    return msgspec.json.encode(heading | {"choices": choices, "usage": _render_usage(finished.usage)})


def render_opening(answering: Answering) -> bytes:
    """Return what a stream begins with: for each choice, whose turn it is."""
    delta = {"role": "assistant", "content": "", "refusal": None}
    choices = range(answering.task.sampling.choices)
    return b"".join(_chunk(answering, [_choice(index, delta)]) for index in choices)


def render_event(answering: Answering, event: Event) -> bytes:
    """Return the server-sent events of an event; a token that has nothing to show yet has none."""
    match event:
        case Token(text="", logprobs=()) | Trimmed():
            return b""
        case Token(text=text, choice=index, logprobs=logprobs):
            said = _choice(index, {"content": text}, _render_logprobs(answering, logprobs))
            return _chunk(answering, [said])
        case Finished():
            return _ending(answering, event)
        case Failed():
            return _server_sent(render_failed(event))


def render_failed(failed: Failed) -> dict[str, Any]:
    """Return what a caller may know of a failure; the same in a stream as in an answer."""
    return {
        "error": {
            "message": failed.message,
            "type": "server_error" if failed.status >= 500 else "invalid_request_error",
            "param": _parameter(failed),
            "code": CODES.get(failed.code, failed.code),
        }
    }


def render_model(name: str, created: int) -> dict[str, Any]:
    """Return a model as /v1/models shows it."""
    return {"id": name, "object": "model", "created": created, "owned_by": "lectern"}


def _ending(answering: Answering, finished: Finished) -> bytes:
    endings = [
        _chunk(answering, [_choice(index, {}, reason=reason)])
        for index, reason in enumerate(finished.reasons)
    ]
    if answering.wants_usage:
        endings.append(_chunk(answering, [], _render_usage(finished.usage)))
    return b"".join([*endings, DONE])


def _chunk(answering: Answering, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    chunk = _heading(answering, "chat.completion.chunk") | {"choices": choices}
    return _server_sent(chunk | {"usage": usage} if answering.wants_usage else chunk)


def _heading(answering: Answering, kind: str) -> dict[str, Any]:
    task = answering.task
    return {
        "id": f"chatcmpl-{task.task_id}",
        "object": kind,
        "created": answering.created,
        "model": task.model or "",
    }


def _choice(
    index: int,
    delta: dict[str, Any],
    logprobs: dict[str, Any] | None = None,
    reason: StopReason | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _render_logprobs(answering: Answering, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if answering.task.sampling.logprobs is None:
        return None
    content = [spell_token(one) | {"top_logprobs": [spell_token(top) for top in one.top]} for one in logprobs]
    return {"content": content, "refusal": None}


def _render_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _parameter(failed: Failed) -> str | None:
    """The message of an invalid request names its field first, see contract.errors.InvalidRequest."""
    if failed.code == "invalid_request" and (field := _FIELD.match(failed.message)):
        return field[1]
    return PARAMETERS.get(failed.code)


def _server_sent(data: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % msgspec.json.encode(data)
