"""The WebSocket protocol of the question server: one JSON object a frame, and two plain words."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from contract import (
    GREEDY,
    MAX_TOKENS_LIMIT,
    Chat,
    ChatMessage,
    Failed,
    Finished,
    InvalidRequest,
    PredictOption,
    Speed,
    Task,
    Token,
)
from gateway.dialects.conversation import check_messages
from gateway.dialects.strict import convert_fields, decode_json, show
from gateway.limits import Limits

#: What `is_predict_option` chooses among.
OPTIONS = ("A", "B", "C", "D")

#: Control frames: generated tokens per second, and seconds to the first token.
Control = Literal["tps", "ftl"]

#: What complaints call a whole request; here that is a frame.
_BODY = re.compile("^body:")


class Question(Struct, frozen=True):
    """A frame that asks something: what it wants done, and how its answer is to be written."""

    id: Any
    task: Task
    characters: int
    wants_ids: bool = False


class Refusal(Exception):
    """A frame that asks nothing that can be answered: what is wrong with it, and its id if it has one."""

    def __init__(self, id: Any, error: InvalidRequest) -> None:  # noqa: A002
        super().__init__(str(error))
        self.id = id
        self.failed = Failed.from_error(error)


class QuestionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON object of a frame; `id` is whatever the client likes."""

    id: Any
    question: Annotated[str, Meta(min_length=1)]
    is_decode: bool = True
    forward_times: Annotated[int, Meta(ge=0, le=MAX_TOKENS_LIMIT)] = 0
    is_predict_option: bool = False


def parse_frame(frame: str | bytes, limits: Limits) -> Question | Control:
    """Read a text frame's characters, or what a client sent in a binary one. Raises Refusal."""
    match frame:
        case "tps" | "ftl":
            return frame
        case str():
            return _parse_question(frame.encode("utf-8", "surrogatepass"), limits)
        case _:
            raise Refusal(None, InvalidRequest("frame: must be text in UTF-8"))


def render_answer(question: Question, tokens: Iterable[Token], finished: Finished) -> str:
    """Return the frame that answers: the text, or the ids where they were asked for."""
    if question.wants_ids:
        answer: Any = [id_ for token in tokens for id_ in token.ids]
    else:
        answer = "".join(token.text for token in tokens)
    seconds = finished.timings.first_token_seconds
    return _render({"id": question.id, "answer": answer, "ftl": seconds})


def render_failed(id: Any, failed: Failed) -> str:  # noqa: A002
    """Return the frame that tells why there is no answer; `id` None where the frame had none."""
    return _render({"id": id, "error": {"code": failed.code, "message": failed.message}})


def render_control(control: Control, speeds: Sequence[Speed]) -> str:
    """Return the workers' speeds as one number: tokens after the first a second, or seconds to the first."""
    if control == "tps":
        amount = float(sum(speed.later_tokens for speed in speeds))
        per = sum(speed.later_seconds for speed in speeds)
    else:
        amount = sum(speed.first_token_seconds for speed in speeds)
        per = float(sum(speed.first_tokens for speed in speeds))
    return str(amount / per if per else 0.0)


def _parse_question(frame: bytes, limits: Limits) -> Question:
    fields: Any = None
    try:
        fields = decode_json(frame, max_depth=limits.json_depth)
        return _as_question(convert_fields(fields, QuestionBody), limits)
    except InvalidRequest as error:
        message = _BODY.sub("frame:", str(error))
        raise Refusal(_id_of(fields), InvalidRequest(message)) from error


def _as_question(body: QuestionBody, limits: Limits) -> Question:
    if len(body.question) > limits.prompt_characters:
        rule = f"must have at most {limits.prompt_characters} characters"
        raise InvalidRequest(f"question: {rule}, got {len(body.question)}")
    if not body.question.strip():
        raise InvalidRequest(f"question: must not be blank, got {show(body.question)}")
    messages = (ChatMessage("user", body.question),)
    check_messages(messages, limits)
    if body.is_predict_option:
        task = Task("chat", Chat(messages, PredictOption(OPTIONS)), GREEDY)
        return Question(body.id, task, len(body.question))
    task = Task("chat", Chat(messages), replace(GREEDY, max_tokens=body.forward_times or None))
    return Question(body.id, task, len(body.question), wants_ids=not body.is_decode)


def _id_of(fields: Any) -> Any:
    return fields.get("id") if isinstance(fields, dict) else None


def _render(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False)
