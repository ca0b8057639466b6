"""The native protocol: POST /tasks/<name>, answered as one JSON or as server-sent events."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta, Struct

from contract import (
    GREEDY,
    Chat,
    ChatMessage,
    Choices,
    Ebnf,
    Event,
    Failed,
    Finished,
    FoundRow,
    InvalidRequest,
    JsonObject,
    JsonSchema,
    OutputInvalid,
    Regex,
    Role,
    RowsAnswer,
    Sampling,
    StopReason,
    Task,
    Token,
    TokenLogprob,
    TokensAnswer,
    Trimmed,
    UnknownTask,
    Wish,
)
from gateway.dialects.conversation import (
    NAME_CHARACTERS,
    ChatFields,
    ModelName,
    as_schema_text,
    check_messages,
    with_listed_stop,
)
from gateway.dialects.logprobs import spell_token
from gateway.dialects.strict import Spelling, convert_fields, decode_json, parse_body, show
from gateway.limits import Limits
from gateway.turn import Turn

#: Characters of a wish: a page of text; the rows need the rest of the context.
WISH_CHARACTERS = 4000

_TASK_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_CHARACTERS}}}")


#: Forms of a chat's answer; rows are for template tasks, which know them from the database.
ChatForm = JsonSchema | JsonObject | Regex | Ebnf | Choices

SPELLING = Spelling(
    choices={
        "messages.role": get_args(Role),
        "form.type": tuple(str(form.__struct_config__.tag) for form in get_args(ChatForm)),
    }
)


class ChatBody(ChatFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /tasks/chat: a conversation, and every field of Sampling beside it."""

    messages: Annotated[tuple[ChatMessage, ...], Meta(min_length=1)]
    form: ChatForm | None = None


class WishBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /tasks/<name> for a template task."""

    wish: Annotated[str, Meta(max_length=WISH_CHARACTERS)]
    model: ModelName | None = None
    stream: bool = False


def parse_chat(body: bytes, limits: Limits) -> tuple[Task, bool]:
    """Return the task, and whether the caller wants it as a stream."""
    fields = decode_json(body, max_depth=limits.json_depth)
    if isinstance(fields, dict):
        fields = _with_schema_text(with_listed_stop(fields))
    chat = convert_fields(fields, ChatBody, SPELLING)
    check_messages(chat.messages, limits)
    return Task("chat", Chat(chat.messages, chat.form), chat.sampling, chat.model), chat.stream


def parse_wish(name: str, body: bytes, limits: Limits) -> tuple[Task, bool]:
    """Return the task, and whether the caller wants it as a stream."""
    if not _TASK_NAME.fullmatch(name):
        raise UnknownTask(f"no task of the name {show(name)}")
    wish = parse_body(body, WishBody, max_depth=limits.json_depth)
    if not wish.wish.strip():
        raise InvalidRequest("wish: must not be blank")
    return Task(name, Wish(wish.wish), GREEDY, wish.model), wish.stream


def render_answer(task: Task, turns: Sequence[Turn], finished: Finished) -> bytes:
    """Return the complete answer as JSON."""
    first = turns[0]
    answer: dict[str, Any] = {"task_id": task.task_id}
    if isinstance(task.input, Chat):
        answer |= _render_turn(task.sampling, first, finished.reason)
        if task.sampling.choices > 1:
            ended = zip(turns, finished.reasons, strict=True)
            answer["choices"] = [_render_turn(task.sampling, turn, reason) for turn, reason in ended]
    else:
        answer |= {"answer": _parse_answer(first.text), "text": first.text} | _render_rows(finished.answer)
    return msgspec.json.encode(answer | {"usage": finished.usage, "timings": finished.timings})


def render_event(task: Task, event: Event) -> bytes:
    """Return an event as one server-sent event; a token that has nothing to show yet is no event."""
    match event:
        case Token(text="", logprobs=()) | Trimmed():
            return b""
        case Token():
            return _server_sent("token", _render_token(task.sampling, event))
        case Finished():
            return _server_sent("finished", _render_finished(task, event))
        case Failed():
            return _server_sent("failed", render_failed(event))


def render_failed(failed: Failed) -> dict[str, Any]:
    """Return what a caller may know of a failure; the same in a stream as in an answer."""
    return {"error": {"code": failed.code, "message": failed.message, "retryable": failed.retryable}}


def _with_schema_text(fields: dict[str, Any]) -> dict[str, Any]:
    form = fields.get("form")
    if not (isinstance(form, dict) and "schema" in form):
        return fields
    return fields | {"form": form | {"schema": as_schema_text(form["schema"])}}


def _render_turn(sampling: Sampling, turn: Turn, reason: StopReason) -> dict[str, Any]:
    rendered: dict[str, Any] = {"text": turn.text, "stop_reason": reason}
    if sampling.logprobs is not None:
        rendered["logprobs"] = [_render_logprob(one) for one in turn.logprobs]
    return rendered


def _render_token(sampling: Sampling, token: Token) -> dict[str, Any]:
    rendered: dict[str, Any] = {"index": token.index, "text": token.text}
    if sampling.choices > 1:
        rendered["choice"] = token.choice
    if sampling.logprobs is not None:
        rendered["logprobs"] = [_render_logprob(one) for one in token.logprobs]
    return rendered


def _render_logprob(of: TokenLogprob) -> dict[str, Any]:
    return {"id": of.id, **spell_token(of), "top": [{"id": one.id, **spell_token(one)} for one in of.top]}


def _render_finished(task: Task, finished: Finished) -> dict[str, Any]:
    ending: dict[str, Any] = {"task_id": task.task_id}
    if finished.answer is None:
        ending["stop_reason"] = finished.reason
        if task.sampling.choices > 1:
            ending["choices"] = [{"stop_reason": reason} for reason in finished.reasons]
    else:
        ending |= _render_rows(finished.answer)
    return ending | {"usage": finished.usage, "timings": finished.timings}


def _render_rows(answer: RowsAnswer | TokensAnswer | None) -> dict[str, Any]:
    if not isinstance(answer, RowsAnswer):
        raise OutputInvalid("the task ended without its rows")
    return {"rows": [_render_row(row) for row in answer.rows], "considered_rows": answer.considered_rows}


def _render_row(row: FoundRow) -> dict[str, Any]:
    """The primary key is always `key`, also beside a column of that name."""
    return {"key": row.key} | row.fields | {"key": row.key}


def _parse_answer(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise OutputInvalid("the task's answer is not a JSON object") from error


def _server_sent(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
