"""The protocol of my-chatglm2: /stream, /generate, /tokenize and /interrupt, of both its versions."""

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from contract import (
    MAX_TOKENS_LIMIT,
    Chat,
    ChatMessage,
    Event,
    Failed,
    Finished,
    InvalidRequest,
    OutputInvalid,
    PromptTooLong,
    Sampling,
    Task,
    Token,
    Tokenize,
    TokensAnswer,
    Trimmed,
)
from gateway.dialects.strict import convert_fields, decode_json, parse_body
from gateway.limits import Limits

#: What a client of that server looks for when its question does not fit.
TOO_LARGE = "query too large."

#: Its numbers may come as text; more digits than these are more than any limit.
_DIGITS = re.compile(r"[0-9]+")
_MOST_DIGITS = len(str(MAX_TOKENS_LIMIT))

#: A question and its answer.
Pair = tuple[str, str]


class ChatBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /stream. `max_length` bounds prompt and answer together, in tokens."""

    query: str
    answer_prefix: str = ""
    max_length: Annotated[int, Meta(ge=1)] = 2048
    history: tuple[Pair, ...] = ()
    top_p: Annotated[float, Meta(ge=0, le=1)] = 0.7
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0


class GenerateBody(ChatBody, frozen=True, forbid_unknown_fields=True):
    """Fields of /generate, as a body or in the address."""

    stream: bool = False


class TokenizeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /tokenize."""

    text: str
    return_tokens: bool = False


class InterruptBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /interrupt, where there is one."""

    id: str | None = None


class Asked(NamedTuple):
    """What a caller wants done, and what every event of the answer says again."""

    task: Task
    query: str
    answer_prefix: str
    history: tuple[Pair, ...]


class Answer:
    """The answer so far; what it says follows from the events that it took."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._history = asked.history
        self.text = asked.answer_prefix

    def take(self, event: Event) -> bool:
        """Note what happened; True if there is more text now."""
        match event:
            case Token(text=text):
                self.text += text
                return bool(text)
            case Trimmed(messages):
                self._history = self._asked.history[messages // 2 :]
        return False

    def render_pair(self) -> bytes:
        """Return the event of /stream: the text, and the history that ends with it."""
        return _event([self.text, [*self._history, (self._asked.query, self.text)]])

    def render_response(self) -> bytes:
        """Return the event of /generate."""
        return _event({"response": self.text})


#: Turns an answer so far into an event.
RenderAnswer = Callable[[Answer], bytes]


def decode_body(body: bytes, limits: Limits) -> Any:
    """Return the fields of a body, not checked yet."""
    return decode_json(body, max_depth=limits.json_depth)


def decode_address(arguments: Iterable[tuple[str, str]], limits: Limits) -> dict[str, Any]:
    """Return the fields that stand in an address, not checked yet; only the history is JSON there."""
    fields: dict[str, Any] = {}
    for name, value in arguments:
        if name in fields:
            raise InvalidRequest(f"{name[:100]}: must be given once")
        fields[name] = value
    if "history" in fields:
        fields["history"] = _decode_history(fields["history"], limits)
    return fields


def wants_stream(fields: Any) -> bool:
    """Whether these fields ask for a stream, right or wrong as they may be."""
    stream = fields.get("stream") if isinstance(fields, dict) else None
    return stream is True or str(stream).lower() in ("true", "1")


def parse_chat(fields: Any, limits: Limits, caller: str) -> Asked:
    """Return what the fields of /stream ask for. Raises InvalidRequest or PromptTooLong."""
    return _asked(convert_fields(_with_number(fields), ChatBody), limits, caller)


def parse_generate(fields: Any, limits: Limits, caller: str, *, is_text: bool) -> Asked:
    """Return what the fields of /generate ask for; `is_text` says that every value came as text."""
    return _asked(convert_fields(_with_number(fields), GenerateBody, strict=not is_text), limits, caller)


def parse_tokenize(body: bytes, limits: Limits) -> tuple[Task, bool]:
    """Return the task, and whether the caller wants the tokens themselves."""
    asked = parse_body(body, TokenizeBody, max_depth=limits.json_depth)
    if len(asked.text) > limits.prompt_characters:
        rule = f"must have at most {limits.prompt_characters} characters"
        raise InvalidRequest(f"text: {rule}, got {len(asked.text)}")
    return Task("tokenize", Tokenize(asked.text)), asked.return_tokens


def parse_interrupt(body: bytes, limits: Limits) -> str | None:
    """Return the id of the one task to stop, None for all of the caller's."""
    if not body.strip():
        return None
    return parse_body(body, InterruptBody, max_depth=limits.json_depth).id


def render_tokens(finished: Finished, wants_tokens: bool) -> bytes:
    """Return the answer of /tokenize."""
    if not isinstance(finished.answer, TokensAnswer):
        raise OutputInvalid("the task ended without its tokens")
    tokens = finished.answer.tokens
    return msgspec.json.encode({"tokens": tokens if wants_tokens else (), "len": len(tokens)})


def render_failed_event(failed: Failed) -> bytes:
    """Return a failure as an event: a plain text in place of JSON."""
    return b"data: %s\n\n" % render_failed(failed)


def render_failed(failed: Failed) -> bytes:
    """Return a failure as one line of text."""
    text = TOO_LARGE if failed.code == PromptTooLong.code else " ".join(failed.message.split())
    return text.encode()


def _decode_history(text: str, limits: Limits) -> Any:
    if not text.strip():
        raise InvalidRequest("history: must be a JSON list, got nothing")
    try:
        return decode_json(text.encode(), max_depth=limits.json_depth)
    except InvalidRequest as error:
        raise InvalidRequest(f"history: {str(error).removeprefix('body: ')}") from error


def _with_number(fields: Any) -> Any:
    """`max_length` may be a string of digits; any other is left for the shape to refuse."""
    if not isinstance(fields, dict) or "max_length" not in fields:
        return fields
    length = fields["max_length"]
    if isinstance(length, str) and _DIGITS.fullmatch(length):
        digits = length.lstrip("0") or "0"
        length = int(digits) if len(digits) <= _MOST_DIGITS else MAX_TOKENS_LIMIT
    return fields | {"max_length": length}


def _asked(body: ChatBody, limits: Limits, caller: str) -> Asked:
    if not body.query.strip():
        raise InvalidRequest("query: must not be blank")
    if len(body.query) + len(body.answer_prefix) > limits.prompt_characters:
        raise PromptTooLong(
            f"query and answer_prefix: must have at most {limits.prompt_characters} characters together"
        )
    history = _newest(body, limits)
    messages: list[ChatMessage] = []
    for question, answer in history:
        messages += ChatMessage("user", question), ChatMessage("assistant", answer)
    messages.append(ChatMessage("user", body.query))
    if body.answer_prefix:
        messages.append(ChatMessage("assistant", body.answer_prefix))
    total_tokens = min(body.max_length, MAX_TOKENS_LIMIT)
    chat = Chat(tuple(messages), drops_history=True, total_tokens=total_tokens)
    task = Task("chat", chat, _sampling(body), caller=caller)
    return Asked(task, body.query, body.answer_prefix, history)


def _sampling(body: ChatBody) -> Sampling:
    """The smallest set of tokens whose probability reaches 0 is the most probable one alone."""
    if body.top_p == 0:
        return Sampling(temperature=0.0)
    return Sampling(temperature=body.temperature, top_p=body.top_p)


def _newest(body: ChatBody, limits: Limits) -> tuple[Pair, ...]:
    """Drop the oldest pairs that no gateway passes on; which of the rest fit, the model's tokens tell."""
    room = limits.prompt_characters - len(body.query) - len(body.answer_prefix)
    most_pairs = (limits.messages - 2) // 2
    kept: list[Pair] = []
    for question, answer in reversed(body.history):
        room -= len(question) + len(answer)
        if room < 0 or len(kept) >= most_pairs:
            break
        kept.append((question, answer))
    return tuple(reversed(kept))


def _event(value: Any) -> bytes:
    return b"data: %s\n\n" % msgspec.json.encode(value)
