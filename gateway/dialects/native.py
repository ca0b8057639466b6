"""The native protocol: POST /tasks/<name>, answered as one JSON or as server-sent events."""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from contract import (
    GREEDY,
    Chat,
    ChatMessage,
    Event,
    Failed,
    Finished,
    FoundRow,
    InvalidRequest,
    OutputInvalid,
    RowsAnswer,
    Sampling,
    Task,
    Token,
    UnknownTask,
    Wish,
)
from gateway.dialects.strict import convert_fields, decode_json, parse_body, show
from gateway.limits import Limits

#: Characters: longer than any name of a model or a task, short enough for a log line.
NAME_CHARACTERS = 200

#: Characters of a wish: a page of text; the rows need the rest of the context.
WISH_CHARACTERS = 4000

#: What a comment line looks like that only keeps a connection open.
KEEP_ALIVE = b": waiting\n\n"

ModelName = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]

_TASK_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_CHARACTERS}}}")


class ChatBody(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /tasks/chat: a conversation, and every field of Sampling beside it."""

    messages: Annotated[tuple[ChatMessage, ...], Meta(min_length=1)]
    model: ModelName | None = None
    stream: bool = False

    @property
    def sampling(self) -> Sampling:
        return Sampling(**{name: getattr(self, name) for name in Sampling.__struct_fields__})


class WishBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /tasks/<name> for a template task."""

    wish: Annotated[str, Meta(max_length=WISH_CHARACTERS)]
    model: ModelName | None = None
    stream: bool = False


def parse_chat(body: bytes, limits: Limits) -> tuple[Task, bool]:
    """Return the task, and whether the caller wants it as a stream."""
    fields = decode_json(body, max_depth=limits.json_depth)
    chat = convert_fields(_with_listed_stop(fields), ChatBody)
    check_messages(chat.messages, limits)
    return Task("chat", Chat(chat.messages), chat.sampling, chat.model), chat.stream


def parse_wish(name: str, body: bytes, limits: Limits) -> tuple[Task, bool]:
    """Return the task, and whether the caller wants it as a stream."""
    if not _TASK_NAME.fullmatch(name):
        raise UnknownTask(f"no task of the name {show(name)}")
    wish = parse_body(body, WishBody, max_depth=limits.json_depth)
    if not wish.wish.strip():
        raise InvalidRequest("wish: must not be blank")
    return Task(name, Wish(wish.wish), GREEDY, wish.model), wish.stream


def check_messages(messages: tuple[ChatMessage, ...], limits: Limits) -> None:
    """Raise InvalidRequest unless a model can answer this conversation."""
    if len(messages) > limits.messages:
        raise InvalidRequest(f"messages: must have at most {limits.messages} entries, got {len(messages)}")
    characters = sum(len(message.content) for message in messages)
    if characters > limits.prompt_characters:
        rule = f"must hold at most {limits.prompt_characters} characters together"
        raise InvalidRequest(f"messages: {rule}, got {characters}")
    last, place = messages[-1], f"messages[{len(messages) - 1}]"
    if last.role != "user":
        raise InvalidRequest(f"{place}.role: the last message must be the user's, got {show(last.role)}")
    if not last.content.strip():
        raise InvalidRequest(f"{place}.content: must not be blank")


def render_answer(task: Task, text: str, finished: Finished) -> bytes:
    """Return the complete answer as JSON."""
    if isinstance(task.input, Chat):
        return msgspec.json.encode(
            {
                "task_id": task.task_id,
                "text": text,
                "stop_reason": finished.reason,
                "usage": finished.usage,
                "timings": finished.timings,
            }
        )
    return msgspec.json.encode(
        {
            "task_id": task.task_id,
            "answer": _parse_answer(text),
            "text": text,
            **_render_rows(finished.answer),
            "usage": finished.usage,
            "timings": finished.timings,
        }
    )


def render_event(task: Task, event: Event) -> bytes:
    """Return an event as one server-sent event; a token without text yet is no event."""
    match event:
        case Token(text=""):
            return b""
        case Token(index=index, text=text):
            return _server_sent("token", {"index": index, "text": text})
        case Finished():
            return _server_sent("finished", _render_finished(task, event))
        case Failed():
            return _server_sent("failed", render_failed(event))


def render_failed(failed: Failed) -> dict[str, Any]:
    """Return what a caller may know of a failure; the same in a stream as in an answer."""
    return {"error": {"code": failed.code, "message": failed.message, "retryable": failed.retryable}}


def _with_listed_stop(fields: Any) -> Any:
    """A single stop string may stand for a list of one."""
    if isinstance(fields, dict) and isinstance(fields.get("stop"), str):
        return fields | {"stop": [fields["stop"]]}
    return fields


def _render_finished(task: Task, finished: Finished) -> dict[str, Any]:
    ending: dict[str, Any] = {"task_id": task.task_id}
    if finished.answer is None:
        ending["stop_reason"] = finished.reason
    else:
        ending |= _render_rows(finished.answer)
    return ending | {"usage": finished.usage, "timings": finished.timings}


def _render_rows(answer: RowsAnswer | None) -> dict[str, Any]:
    if answer is None:
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
