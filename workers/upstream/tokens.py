"""Asks those OpenAI-compatible servers that can tell it how they split text into tokens."""

from collections.abc import Sequence
from typing import Any

from contract import CannotDo, ChatMessage, OutputError
from workers.upstream.kinds import Kind
from workers.upstream.line import Line

#: Seconds for a count: it is made before an answer begins.
SECONDS = 5.0


def count_tokens(line: Line, kind: Kind, model: str, messages: Sequence[ChatMessage]) -> int | None:
    """Return the length of the prompt, None if the server has no way to tell. Raises a ServingError."""
    written = [{"role": message.role, "content": message.content} for message in messages]
    going_on = (kind.go_on or {}) if messages[-1].role == "assistant" else {}
    match kind.name:
        case "vllm":
            body = {"model": model, "messages": written, **going_on}
            return _whole_number(line.fetch("POST", f"{_root(line)}/tokenize", body, seconds=SECONDS))
        case "llamacpp":
            template = line.fetch(
                "POST", f"{_root(line)}/apply-template", {"messages": written}, seconds=SECONDS
            )
            prompt = template.get("prompt") if isinstance(template, dict) else None
            if not isinstance(prompt, str):
                raise OutputError("the upstream does not say how it writes a conversation")
            return len(_tokens(line, {"content": prompt, "add_special": True, "parse_special": True}))
        case _:
            return None


def split_tokens(line: Line, kind: Kind, text: str) -> tuple[str, ...]:
    """Return the tokens of a text. Raises CannotDo if the server has no way to tell, or a ServingError."""
    if kind.name != "llamacpp":
        raise CannotDo(f"text: an upstream of the kind {kind.name} does not tell its tokens")
    body = {"content": text, "with_pieces": True, "parse_special": False}
    return tuple(_piece(token) for token in _tokens(line, body))


def _tokens(line: Line, body: dict[str, Any]) -> list[Any]:
    told = line.fetch("POST", f"{_root(line)}/tokenize", body, seconds=SECONDS)
    tokens = told.get("tokens") if isinstance(told, dict) else None
    if not isinstance(tokens, list):
        raise OutputError("the upstream does not say which tokens a text has")
    return tokens


def _piece(token: Any) -> str:
    """llama.cpp gives a piece as text, or as a list of bytes where it is no whole character."""
    piece = token.get("piece") if isinstance(token, dict) else None
    match piece:
        case str():
            return piece
        case list() if all(isinstance(byte, int) and 0 <= byte < 256 for byte in piece):
            return bytes(piece).decode(errors="replace")
        case _:
            raise OutputError("the upstream does not spell its tokens")


def _whole_number(told: Any) -> int:
    count = told.get("count") if isinstance(told, dict) else None
    if not isinstance(count, int):
        raise OutputError("the upstream does not say how many tokens a conversation has")
    return count


def _root(line: Line) -> str:
    """These routes lie beside /v1, not below it."""
    return line.url.removesuffix("/v1")
