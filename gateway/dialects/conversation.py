"""What a chat is asked with in every protocol that knows sampling: its fields, and what they must keep to."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from contract import ChatMessage, InvalidRequest, Sampling
from gateway.dialects.strict import show
from gateway.limits import Limits

#: Characters: longer than any name of a model or a task, short enough for a log line.
NAME_CHARACTERS = 200

ModelName = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]


class ChatFields(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every field of Sampling, and what a body holds beside it and the conversation."""

    model: ModelName | None = None
    stream: bool = False

    @property
    def sampling(self) -> Sampling:
        return Sampling(**{name: getattr(self, name) for name in Sampling.__struct_fields__})


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


def with_listed_stop(fields: dict[str, Any]) -> dict[str, Any]:
    """A single stop string may stand for a list of one."""
    stop = fields.get("stop")
    return fields | {"stop": [stop]} if isinstance(stop, str) else fields


def as_schema_text(schema: Any) -> Any:
    """A JSON schema may come as an object or as its text; anything else is left for the shape to refuse."""
    return msgspec.json.encode(schema).decode() if isinstance(schema, dict) else schema
