"""What a refusal of an upstream means here: its status and body become one of our errors."""

from collections.abc import Mapping
from typing import Any

import msgspec

from contract import (
    BodyTooLarge,
    CannotDo,
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    ServingError,
    UnknownModel,
    UpstreamDown,
)

#: Characters of an upstream's message that are passed on.
MESSAGE_CHARACTERS = 300

#: Codes and types with which servers say that a prompt does not fit.
TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "prompt_too_long"})

#: How the message says it where there is no code (vLLM, SGLang).
TOO_LONG_WORDS = ("context length", "maximum context", "context window", "longer than the model")

#: The longest time that an upstream may send callers away for, in seconds.
LONGEST_RETRY_SECONDS = 3600.0


class KeyRefused(UpstreamDown):
    """The upstream wants another API key, which only who runs this server can give it."""


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> ServingError:
    """Return the error that an answer without a result stands for."""
    error = _error_of(body)
    message = told(error) or f"HTTP status {status}"
    match status:
        case 400 | 413 | 422 if is_too_long(error):
            return PromptTooLong(f"the upstream says: {message}")
        case 413:
            return BodyTooLarge(f"the upstream says: {message}")
        case 400 | 422:
            return request_error(error)
        case 429:
            return Overloaded(f"the upstream is busy: {message}", retry_after_seconds=_retry_after(headers))
        case 401 | 403:
            return KeyRefused(f"the upstream does not take this server's key ({status})")
        case 404:
            return UnknownModel(f"the upstream says: {message}")
        case 408 | 504:
            return UpstreamDown(f"the upstream took too long: {message}")
        case _:
            return UpstreamDown(
                f"the upstream answered with {status}: {message}", retry_after_seconds=_retry_after(headers)
            )


def error_in_stream(error: Any) -> ServingError:
    """Return the error that an event in the middle of a stream tells of."""
    if is_too_long(error):
        return PromptTooLong(f"the upstream says: {told(error)}")
    if isinstance(error, dict) and error.get("type") in ("invalid_request_error", "BadRequestError"):
        return request_error(error)
    return UpstreamDown(f"the upstream failed: {told(error) or 'it does not say why'}")


def request_error(error: Any) -> ServingError:
    """Return what the caller has to change."""
    message = f"the upstream says: {told(error) or 'it cannot do that'}"
    if isinstance(error, dict) and error.get("code") == CannotDo.code:
        return CannotDo(message)
    name = error.get("param") if isinstance(error, dict) else None
    return InvalidRequest(f"{name}: {message}" if isinstance(name, str) and name else message)


def is_too_long(error: Any) -> bool:
    if isinstance(error, dict) and not TOO_LONG_CODES.isdisjoint({error.get("code"), error.get("type")}):
        return True
    message = told(error).lower()
    return any(words in message for words in TOO_LONG_WORDS)


def told(error: Any) -> str:
    """Return the message of an error, in whatever form servers give it; empty if there is none."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("error") or ""
    text = error if isinstance(error, str) else ""
    shown = " ".join(text.split())
    return shown if len(shown) <= MESSAGE_CHARACTERS else shown[:MESSAGE_CHARACTERS] + "…"


def _error_of(body: bytes) -> Any:
    """Most servers nest it under `error`; FastAPI says `detail`; a proxy sends a page, which says nothing."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return None
    if isinstance(answer, dict):
        return answer.get("error", answer)
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    said = headers.get("retry-after", "")
    is_seconds = said.isascii() and said.isdigit() and len(said) < 10
    return min(float(said), LONGEST_RETRY_SECONDS) if is_seconds else None
