"""A model that says what it was told to say: for tests, and for work on a front end."""

import json
import math
import re
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence

from msgspec.structs import replace

from contract import (
    AnswerForm,
    ChatMessage,
    ChooseRows,
    Completion,
    ModelCard,
    PredictOption,
    PromptTooLong,
    Sampling,
    StopReason,
    Timings,
    Token,
    TokenLogprob,
    Usage,
)

#: Characters of the longest piece that counts as one token.
_PIECE_CHARACTERS = 4

#: Token ids lie below; that of a piece is drawn from its letters, so that equal pieces have equal ids.
_VOCABULARY = 32_000

#: The id of a token that begins a character and prints nothing yet.
_FIRST_HALF_ID = _VOCABULARY

#: A space goes with the word after it; a character beyond 16 bit stands alone, see `_as_tokens`.
_PIECE = re.compile(rf"[\U00010000-\U0010ffff]|\s?[^\s\U00010000-\U0010ffff]{{1,{_PIECE_CHARACTERS}}}|\s")

#: What the model says: always the same, or made from the conversation.
Script = str | Callable[[Sequence[ChatMessage]], str]

#: What the model chooses under a constraint: always the same, or made from the conversation.
Picks = Sequence[str] | Callable[[Sequence[ChatMessage]], Sequence[str]]


class ScriptedModel:
    """Speaks its script token by token with a pause before each; counts and records what it was asked.

    `prompts` and `samplings` hold every call's arguments; `stopped_early` counts generators that were
    closed before their end. Without `picks` a choice of rows is answered with its first value; an option is
    predicted by the script up to the first one in it; scripts for answers in other forms must be in them.
    """

    def __init__(
        self,
        script: Script = "the quick brown fox",
        *,
        pause_seconds: float = 0.0,
        picks: Picks | None = None,
        name: str = "scripted",
        context_tokens: int = 8192,
    ) -> None:
        self._script = script
        self._pause_seconds = pause_seconds
        self._picks = picks
        self._card = ModelCard(name=name, fingerprint="scripted", context_tokens=context_tokens)
        self._lock = threading.Lock()
        self.prompts: list[tuple[ChatMessage, ...]] = []
        self.samplings: list[Sampling] = []
        self.stopped_early = 0

    @property
    def card(self) -> ModelCard:
        return self._card

    def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        constraint: AnswerForm | None = None,
        said: Sequence[Sequence[int]] = (),
    ) -> Generator[Token, None, Completion]:
        """Yield the script up to the first stop string or `max_tokens`. Raises PromptTooLong.

        An answer that has begun with the script's own first words goes on with the rest of it, any
        other with the whole script.
        Several choices say the same, one token each in turn; what was `said` comes without a pause.
        Penalties, biases and `min_tokens` change nothing; log probabilities are made up.
        """
        started = time.monotonic()
        with self._lock:
            self.prompts.append(tuple(messages))
            self.samplings.append(sampling)
        prompt_tokens = self.count_tokens(messages)
        tokens, reason = self._answer(messages, sampling, constraint, prompt_tokens)
        first_token_seconds = 0.0
        try:
            said_tokens = min(map(len, said), default=0)
            for token in tokens:
                if token.index >= said_tokens:
                    time.sleep(self._pause_seconds)
                first_token_seconds = first_token_seconds or time.monotonic() - started
                yield from _by_choice(token, sampling.choices)
        except GeneratorExit:
            with self._lock:
                self.stopped_early += 1
            raise
        usage = Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens) * sampling.choices,
            steps=len(tokens) or 1,
        )
        timings = Timings(first_token_seconds, time.monotonic() - started)
        return Completion((reason,) * sampling.choices, usage, timings)

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Return the tokens of all contents; there is no template around them."""
        return sum(len(_as_tokens(message.content)) for message in messages)

    def split_tokens(self, text: str) -> tuple[str, ...]:
        """Return the tokens as the model speaks them."""
        return tuple(token.text for token in _as_tokens(text))

    def close(self) -> None:
        """There is nothing to let go of."""

    def _answer(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        constraint: AnswerForm | None,
        prompt_tokens: int,
    ) -> tuple[list[Token], StopReason]:
        context = self._card.context_tokens
        if prompt_tokens >= context:
            raise PromptTooLong(f"the prompt has {prompt_tokens} tokens, the context {context}")
        if isinstance(constraint, ChooseRows):
            script = self._choose(messages, constraint)
        else:
            script = self._script if isinstance(self._script, str) else self._script(messages)
        if messages[-1].role == "assistant":
            script = script.removeprefix(messages[-1].content)
        if isinstance(constraint, PredictOption):
            script = _up_to_option(script, constraint.options)
        tokens = _as_tokens(_cut(script, sampling.stop))
        room = context - prompt_tokens
        limit = room if sampling.max_tokens is None else min(sampling.max_tokens, room)
        said = tokens[:limit]
        if sampling.logprobs is not None:
            said = [_with_logprob(token, sampling.logprobs) for token in said]
        return said, "stop" if len(tokens) <= limit else "length"

    def _choose(self, messages: Sequence[ChatMessage], constraint: ChooseRows) -> str:
        """Return the JSON object that the constraint asks for, with the picks or the first value."""
        if self._picks is None:
            picks: Sequence[str] = constraint.values[:1]
        else:
            picks = self._picks(messages) if callable(self._picks) else self._picks
        unknown = [pick for pick in picks if pick not in constraint.values]
        if unknown or len(picks) > constraint.at_most or len(set(picks)) < len(picks):
            raise ValueError(f"picks {list(picks)!r} break the constraint {constraint!r}")
        return json.dumps({str(number): pick for number, pick in enumerate(picks, 1)}, ensure_ascii=False)


def _up_to_option(script: str, options: Sequence[str]) -> str:
    """Cut the script behind the first option that stands by itself; without any, say the first."""
    found = re.search(rf"(?<![0-9A-Za-z])(?:{'|'.join(options)})(?![0-9A-Za-z])", script)
    return options[0] if found is None else script[: found.end()]


def _cut(text: str, stops: Sequence[str]) -> str:
    ends = [end for end in (text.find(stop) for stop in stops) if end >= 0]
    return text[: min(ends, default=len(text))]


def _by_choice(token: Token, choices: int) -> Iterator[Token]:
    return (replace(token, choice=choice) for choice in range(choices))


def _with_logprob(token: Token, alternatives: int) -> Token:
    """Make up log probabilities: the token has one half, each alternative half of the one before."""
    (spoken,) = token.ids
    first = TokenLogprob(spoken, token.text.encode(), math.log(0.5))
    others = [
        TokenLogprob(spoken + place, b"<%d>" % (spoken + place), math.log(0.5) * (place + 1))
        for place in range(1, alternatives)
    ]
    return replace(token, logprobs=(replace(first, top=(first, *others)[:alternatives]),))


def _as_tokens(text: str) -> list[Token]:
    """Split text into tokens; a character beyond 16 bit takes two, and prints with the second."""
    tokens: list[Token] = []
    for piece in _PIECE.findall(text):
        if ord(piece[0]) > 0xFFFF:
            tokens.append(Token(len(tokens), (_FIRST_HALF_ID,), ""))
        tokens.append(Token(len(tokens), (zlib.crc32(piece.encode()) % _VOCABULARY,), piece))
    return tokens
