"""The requests of OpenAI's chat API, with vLLM's extensions: a body becomes a task.

A field that cannot be kept is refused by name; one that changes nothing here is taken with the values for
which that is true. Fields: https://platform.openai.com/docs/api-reference/chat/create and, for the
extensions, https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html.
"""

from typing import Annotated, Any, Literal, NamedTuple, get_args

from msgspec import Meta, Struct
from msgspec.structs import replace

from contract import MAX_TOKENS_LIMIT, Chat, ChatMessage, InvalidRequest, Role, Sampling, Task
from gateway.dialects.conversation import ChatFields, check_messages, with_listed_stop
from gateway.dialects.openai_form import FORMAT_TYPES, ResponseFormat, StructuredOutputs, answer_form
from gateway.dialects.strict import Spelling, convert_fields, decode_json, show
from gateway.limits import Limits

#: OpenAI's default; the native protocol is a little calmer.
DEFAULT_TEMPERATURE = 1.0

#: OpenAI's and vLLM's names of fields that the contract calls otherwise.
CONTRACT_NAMES = {
    "n": "choices",
    "ignore_eos": "ignore_end",
    "top_logprobs": "logprobs",
    "logprobs": "wants_logprobs",
}

#: Fields that ask for what is done anyway, if they have one of these values.
NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
}

#: Fields that are objects of fields that may be null.
OBJECT_FIELDS = frozenset({"stream_options", "response_format"})

OpenAIRole = Literal["system", "developer", "user", "assistant"]

#: What stands between two parts of a text, as in vLLM.
PART_SEPARATOR = "\n"


class TextPart(Struct, frozen=True, tag="text", forbid_unknown_fields=True):
    """A part of a message."""

    text: str


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation, as a text or in parts."""

    role: OpenAIRole
    content: str | tuple[TextPart, ...]


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What a stream holds beside the text."""

    include_usage: bool = False


class ChatBody(ChatFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/chat/completions, its fields named as in the contract. The last four are labels."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS_LIMIT)] | None = None
    wants_logprobs: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None


SPELLING = Spelling(
    choices={
        "messages.role": get_args(OpenAIRole),
        "messages.content.type": ("text",),
        "response_format.type": FORMAT_TYPES,
    },
    names={ours: theirs for theirs, ours in CONTRACT_NAMES.items()},
)


class Asked(NamedTuple):
    """What a caller wants done, and how they want it told."""

    task: Task
    wants_stream: bool
    wants_usage: bool


def parse_chat(body: bytes, limits: Limits) -> Asked:
    """Return what the body asks for. Raises InvalidRequest naming field, rule and value."""
    fields = decode_json(body, max_depth=limits.json_depth)
    if isinstance(fields, dict):
        fields = _in_contract_names(_without_neutral(_given(fields)))
    chat = convert_fields(fields, ChatBody, SPELLING)
    if chat.stream_options is not None and not chat.stream:
        raise InvalidRequest("stream_options: is for streams only, set stream to true")
    messages = tuple(_as_message(message) for message in chat.messages)
    check_messages(messages, limits)
    form = answer_form(chat.response_format, chat.structured_outputs)
    task = Task("chat", Chat(messages, form), _sampling(chat), chat.model)
    return Asked(task, chat.stream, chat.stream_options is not None and chat.stream_options.include_usage)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is null: in a body, its options and its messages that means "not given"."""
    given = {name: value for name, value in fields.items() if value is not None}
    for name in given.keys() & OBJECT_FIELDS:
        given[name] = _without(given[name], None)
    if isinstance(messages := given.get("messages"), list):
        # An assistant's message comes back as it was sent, with its empty `tool_calls`.
        given["messages"] = [_without(message, None, []) for message in messages]
    return given


def _without(fields: Any, *values: Any) -> Any:
    if not isinstance(fields, dict):
        return fields
    return {name: value for name, value in fields.items() if value not in values}


def _without_neutral(fields: dict[str, Any]) -> dict[str, Any]:
    for name in fields.keys() & NEUTRAL_VALUES.keys():
        allowed = [show(value) for value in NEUTRAL_VALUES[name]]
        if show(fields[name]) not in allowed:
            raise InvalidRequest(f"{name}: must be {' or '.join(allowed)} here, got {show(fields[name])}")
    return {name: value for name, value in fields.items() if name not in NEUTRAL_VALUES}


def _in_contract_names(fields: dict[str, Any]) -> dict[str, Any]:
    for name in CONTRACT_NAMES.values():
        if name in fields and name not in CONTRACT_NAMES:
            raise InvalidRequest(f"{name}: unknown field")
    if fields.get("top_k") == -1:  # vLLM's "off"
        fields = fields | {"top_k": 0}
    named = {CONTRACT_NAMES.get(name, name): value for name, value in fields.items()}
    return {"temperature": DEFAULT_TEMPERATURE} | with_listed_stop(named)


def _as_message(message: Message) -> ChatMessage:
    role: Role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return ChatMessage(role, message.content)
    return ChatMessage(role, PART_SEPARATOR.join(part.text for part in message.content))


def _sampling(chat: ChatBody) -> Sampling:
    if chat.logprobs and not chat.wants_logprobs:
        raise InvalidRequest("top_logprobs: needs logprobs to be true")
    limit = chat.max_completion_tokens
    if limit is not None and chat.max_tokens not in (None, limit):
        raise InvalidRequest(
            f"max_tokens: must be max_completion_tokens ({limit}) or absent, got {chat.max_tokens}"
        )
    return replace(
        chat.sampling,
        max_tokens=chat.max_tokens if limit is None else limit,
        logprobs=(chat.logprobs or 0) if chat.wants_logprobs else None,
    )
