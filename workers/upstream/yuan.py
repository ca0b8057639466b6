"""A model behind a Yuan-2.0 inference server: one question at a time, answered whole."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from msgspec.structs import replace

from contract import AnswerForm, CannotDo, ChatMessage, Completion, ModelCard, Sampling, Timings, Token, Usage
from workers.upstream.answers import estimated_tokens, joined, seed_of, untold
from workers.upstream.asking import next_turn
from workers.upstream.line import NOTHING_YET, TICK_SECONDS, Attempt, Line, read_json
from workers.upstream.stops import StopCut
from workers.upstream.turnstile import Turnstile
from workers.upstream.yuan_wire import read_answer, write_body, write_prompt

#: Fields of Sampling that the server cannot be told; `write_body` tells it the others.
CANNOT_SAMPLE = untold(("temperature", "top_p", "top_k", "max_tokens", "seed"))

#: Tokens of prompt and answer together, unless it is set otherwise: what Yuan-2.0 was made for.
CONTEXT_TOKENS = 8192

#: Requests that may wait for the one that is worked on.
MOST_WAITING = 64


class YuanModel:
    """Strictly one request at a time, as the server works; others wait their turn."""

    def __init__(self, card: ModelCard, line: Line) -> None:
        self._card = card
        self._line = line
        self._turnstile = Turnstile(MOST_WAITING)

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
        """Yield the assistant's next turn as one token; see `contract.Model`."""
        return next_turn(self._card, self._ask, messages, sampling, constraint, said)

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Return an estimate that is rather too high; what the prompt leaves out does not count."""
        return estimated_tokens([ChatMessage("user", write_prompt(messages))])

    def split_tokens(self, text: str) -> tuple[str, ...]:
        """Raise CannotDo: the server does not tell."""
        raise CannotDo("text: a Yuan-2.0 upstream does not tell its tokens")

    def close(self) -> None:
        """Close the connections that wait for another request."""
        self._line.close()

    def _ask(
        self, messages: Sequence[ChatMessage], sampling: Sampling, fields: Mapping[str, Any]
    ) -> Generator[Token, None, Completion]:
        """Ask for each choice after the other; there are no fields for a form."""
        prompt = write_prompt(messages)
        choices = []
        for choice in range(sampling.choices):
            own = replace(sampling, choices=1, seed=seed_of(sampling, choice))
            body = write_body(prompt, own, self._card.context_tokens)
            choices.append((yield from self._in_turn(partial(self._attempt, body, own, choice))))
        return joined(choices)

    def _in_turn(self, attempt: partial[Attempt]) -> Generator[Token, None, Completion]:
        ticket = self._turnstile.enter()
        try:
            while not self._turnstile.wait(ticket, TICK_SECONDS):
                yield NOTHING_YET
            return (yield from self._line.ask(attempt))
        finally:
            self._turnstile.leave(ticket)

    def _attempt(self, body: dict[str, Any], sampling: Sampling, choice: int) -> Attempt:
        pieces = []
        with closing(self._line.open("PUT", self._line.url, body)) as opened:
            for piece in opened:
                if piece is None:
                    yield None
                else:
                    pieces.append(piece)
        cut = StopCut(sampling.stop)
        text = cut.feed(read_answer(read_json(b"".join(pieces)))) + cut.flush()
        yield Token(0, (), text, choice)
        return Completion(("stop",), Usage(), Timings())
