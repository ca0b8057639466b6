"""The protocol of ChatGlm4-Web-demo: /chat and /book, and their names on the old kernel's port."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from contract import (
    GREEDY,
    Chat,
    ChatMessage,
    Finished,
    InvalidRequest,
    OutputInvalid,
    RowsAnswer,
    Sampling,
    Task,
    Wish,
)
from gateway.dialects.conversation import check_messages
from gateway.dialects.native import WISH_CHARACTERS
from gateway.dialects.strict import convert_fields, parse_body
from gateway.limits import Limits

#: The template task that stands behind /book and /getbooks.
BOOK_TASK = "book_retrieval"

Text = Annotated[str, Meta(min_length=1)]


class GatewayBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /chat and /book."""

    msg: Text
    temperature: float | str


class KernelBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /kernel_chat and /getbooks."""

    prompt: Text
    temperature: float | str


BodyShape = type[GatewayBody] | type[KernelBody]


def parse_chat(body: bytes, shape: BodyShape, limits: Limits) -> Task:
    """Return a chat of one turn at the caller's temperature."""
    name, text, sampling = _parse(body, shape, limits)
    messages = (ChatMessage("user", text),)
    if len(text) > limits.prompt_characters:
        raise InvalidRequest(
            f"{name}: must have at most {limits.prompt_characters} characters, got {len(text)}"
        )
    check_messages(messages, limits)
    return Task("chat", Chat(messages), sampling)


def parse_book(body: bytes, shape: BodyShape, limits: Limits) -> Task:
    """Return the book retrieval task.

    The temperature is checked like that of a chat, but a template task always takes the most
    probable rows: its clients send one value for both routes.
    """
    name, text, _ = _parse(body, shape, limits)
    if len(text) > WISH_CHARACTERS:
        raise InvalidRequest(f"{name}: must have at most {WISH_CHARACTERS} characters, got {len(text)}")
    return Task(BOOK_TASK, Wish(text), GREEDY)


def render_chat(text: str) -> bytes:
    """Return the answer of /chat and /kernel_chat."""
    return msgspec.json.encode({"respond": text})


def render_book(text: str, finished: Finished) -> bytes:
    """Return the answer of /book and /getbooks: the text, and beside it the rows themselves."""
    if not isinstance(finished.answer, RowsAnswer):
        raise OutputInvalid("the task ended without its rows")
    books = [{"id": row.key, "title": row.fields.get("title")} for row in finished.answer.rows]
    return msgspec.json.encode({"respond": text, "books": books})


def _parse(body: bytes, shape: BodyShape, limits: Limits) -> tuple[str, str, Sampling]:
    """Return the name of the text's field, the text, and how to sample."""
    fields: GatewayBody | KernelBody = parse_body(body, shape, max_depth=limits.json_depth)
    name = shape.__struct_fields__[0]
    text: str = getattr(fields, name)
    if not text.strip():
        raise InvalidRequest(f"{name}: must not be blank")
    return name, text, convert_fields({"temperature": fields.temperature}, Sampling, strict=False)
