"""OpenAI's chat API as its client writes and reads it: bodies of requests, and chunks of streams.

The forms are those of https://platform.openai.com/docs/api-reference/chat.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from contract import ChatMessage, OutputError, Sampling, TokenLogprob, Usage
from workers.upstream.kinds import Kind

#: What ends a stream that went well.
DONE = b"[DONE]"

#: Fields of Sampling that need more than another name.
_APART = frozenset({"logprobs", "stop", "seed", "max_tokens", "choices", "logit_bias"})


Byte = Annotated[int, Meta(ge=0, le=255)]


class Delta(Struct):
    """What a choice has said more."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class SpelledToken(Struct):
    """A token and its log probability; `bytes` are missing where a server does not tell them."""

    token: str
    logprob: float
    bytes: list[Byte] | None = None
    top_logprobs: list["SpelledToken"] | None = None


class Logprobs(Struct):
    content: list[SpelledToken] | None = None


class ChunkChoice(Struct):
    index: int = 0
    delta: Delta | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class PromptDetails(Struct):
    cached_tokens: int | None = None


class ChunkUsage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None


class Chunk(Struct):
    """One event of a stream; what else servers put into it is not needed here."""

    choices: list[ChunkChoice] = []
    usage: ChunkUsage | None = None
    error: Any = None


class ListedModel(Struct):
    """A model of GET /models: `max_model_len` is vLLM's and SGLang's, `meta` llama.cpp's."""

    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    meta: Any = None

    @property
    def context_tokens(self) -> int | None:
        """How much text it takes, if the server tells."""
        told = self.max_model_len or (self.meta.get("n_ctx") if isinstance(self.meta, dict) else None)
        return told if isinstance(told, int) and told > 0 else None


class ModelList(Struct):
    data: list[ListedModel]


def chat_body(
    kind: Kind, model: str, messages: Sequence[ChatMessage], sampling: Sampling, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the body that asks for these choices as a stream; `extra` fields are added as they are.

    What has a default elsewhere is told also where it is off here: servers have defaults of their own.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if messages[-1].role == "assistant":
        body |= kind.go_on or {}
    for ours, theirs in kind.names.items():
        if ours not in _APART:
            value = getattr(sampling, ours)
            is_off = value == getattr(Sampling(), ours)
            body[theirs] = kind.off.get(ours, value) if is_off else value
    if sampling.max_tokens is not None:
        body[kind.names["max_tokens"]] = sampling.max_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop[: kind.most_stops])
    if sampling.seed is not None:
        body["seed"] = sampling.seed % 2**kind.seed_bits
    if sampling.logit_bias:
        body["logit_bias"] = {str(id_): bias for id_, bias in sampling.logit_bias.items()}
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    if sampling.choices > 1:
        body["n"] = sampling.choices
    return {**body, **kind.beside, **extra}


def read_chunk(data: bytes) -> Chunk:
    """Return an event of a stream. Raises OutputError if it is something else."""
    try:
        return msgspec.json.decode(data, type=Chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise OutputError(f"the upstream's stream is not OpenAI's: {data[:60]!r}") from error


def read_models(listed: Any) -> list[ListedModel]:
    """Return the models of GET /models. Raises OutputError."""
    try:
        return msgspec.convert(listed, ModelList).data
    except msgspec.ValidationError as error:
        raise OutputError(f"the upstream's list of models is not OpenAI's: {error}") from error


def read_usage(usage: ChunkUsage | None) -> Usage:
    """Return what the upstream says it took; it does not tell its steps."""
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details
    cached_tokens = (details.cached_tokens or 0) if details is not None else 0
    return Usage(usage.prompt_tokens, cached_tokens, usage.completion_tokens)


def read_logprobs(logprobs: Logprobs | None) -> tuple[TokenLogprob, ...]:
    """Return the log probabilities of the tokens in a chunk; their ids are not told."""
    return tuple(_token_logprob(one) for one in (logprobs and logprobs.content) or ())


def _token_logprob(spelled: SpelledToken) -> TokenLogprob:
    top = tuple(_token_logprob(one) for one in spelled.top_logprobs or ())
    token = spelled.token.encode() if spelled.bytes is None else bytes(spelled.bytes)
    return TokenLogprob(None, token, spelled.logprob, top)
