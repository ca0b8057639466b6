"""A model behind any server that speaks OpenAI's chat API."""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from msgspec.structs import replace

from contract import AnswerForm, ChatMessage, Completion, ModelCard, Sampling, ServingError, Token
from workers.upstream.answers import estimated_tokens, seed_of, side_by_side
from workers.upstream.asking import next_turn
from workers.upstream.events import EventReader
from workers.upstream.kinds import Kind
from workers.upstream.line import TICK_SECONDS, Attempt, Line
from workers.upstream.openai_wire import DONE, chat_body, read_chunk
from workers.upstream.telling import Telling
from workers.upstream.tokens import count_tokens, split_tokens

logger = logging.getLogger(__name__)


class OpenAIModel:
    """Streams from the server; `model` is what the server calls the model."""

    def __init__(self, card: ModelCard, kind: Kind, model: str, line: Line) -> None:
        self._card = card
        self._kind = kind
        self._model = model
        self._line = line

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
        """Yield the assistant's next turn; see `contract.Model`. Tokens have no ids."""
        native, keeps_forms = self._kind.native_form, self._kind.keeps_forms
        return next_turn(
            self._card, self._ask, messages, sampling, constraint, said, native, keeps_forms=keeps_forms
        )

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Ask the server if it can count, else estimate rather too many."""
        try:
            counted = count_tokens(self._line, self._kind, self._model, messages)
        except ServingError as error:
            logger.warning("Upstream %s cannot count tokens now: %s", self._line.url, error)
            counted = None
        return estimated_tokens(messages) if counted is None else counted

    def split_tokens(self, text: str) -> tuple[str, ...]:
        """Ask the server. Raises CannotDo if it has no way to tell."""
        return split_tokens(self._line, self._kind, text)

    def close(self) -> None:
        """Close the connections that wait for another request."""
        self._line.close()

    def _ask(
        self, messages: Sequence[ChatMessage], sampling: Sampling, fields: Mapping[str, Any]
    ) -> Generator[Token, None, Completion]:
        """Ask for all choices in one request if the server can make several, else in one for each."""
        if sampling.choices == 1 or self._kind.has_choices:
            return self._request(messages, sampling, fields)
        return side_by_side(
            [
                partial(self._request, messages, own, fields, first=choice)
                for choice in range(sampling.choices)
                for own in [replace(sampling, choices=1, seed=seed_of(sampling, choice))]
            ]
        )

    def _request(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        fields: Mapping[str, Any],
        first: int = 0,
    ) -> Generator[Token, None, Completion]:
        body = chat_body(self._kind, self._model, messages, sampling, fields)
        last = messages[-1]
        begun = last.content if self._kind.echoes and last.role == "assistant" else ""
        return self._line.ask(partial(self._attempt, body, lambda: Telling(sampling, first, begun)))

    def _attempt(self, body: dict[str, Any], begin: Callable[[], Telling]) -> Attempt:
        telling = begin()
        reader = EventReader()
        is_done = False
        opened = self._line.open("POST", f"{self._line.url}/chat/completions", body, TICK_SECONDS)
        with closing(opened):
            for piece in opened:
                if piece is None:
                    if is_done:
                        break
                    yield None
                    continue
                for data in reader.feed(piece):
                    if data == DONE:
                        is_done = True  # the rest is read, so that the connection can serve again
                    else:
                        yield from telling.hear(read_chunk(data))
                if telling.is_cut:
                    break
        return telling.end()
