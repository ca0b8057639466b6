"""What one caller reads: the tokens of all choices as they come, then how each of them ended."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from contract import Completion, Draining, ServingError, StopReason, Timings, Token, Usage

#: Seconds between two empty tokens while a reader waits: how soon a waiting task notices its cancel.
WAIT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Ended:
    """One choice is whole."""

    choice: int
    reason: StopReason
    usage: Usage


class Answer:
    """Filled by the engine's thread, read by the caller's; `choices` sequences write to it."""

    def __init__(self, choices: int = 1) -> None:
        self.is_cancelled = False
        self._choices = choices
        self._outbox: SimpleQueue[Token | Ended | ServingError] = SimpleQueue()
        self._arrived = time.monotonic()
        self._first_token_seconds = 0.0

    def tell(self, outcome: Token | Ended | ServingError) -> None:
        if not self._first_token_seconds and isinstance(outcome, Token):
            self._first_token_seconds = time.monotonic() - self._arrived
        self._outbox.put(outcome)

    def read(self, is_alive: Callable[[], bool]) -> Generator[Token, None, Completion]:
        """Yield the tokens, empty ones while nothing comes, until every choice has ended.

        Raises what befell one of them, and Draining once nobody `is_alive` who could tell more.
        """
        index = 0
        endings: dict[int, Ended] = {}
        while len(endings) < self._choices:
            try:
                outcome = self._outbox.get(timeout=WAIT_SECONDS)
            except Empty:
                if not is_alive() and self._outbox.empty():  # asked in this order: the dead say no more
                    raise Draining("the model is shutting down") from None
                yield Token(index, (), "")
                continue
            match outcome:
                case Token():
                    index = outcome.index + len(outcome.ids)
                    yield outcome
                case Ended():
                    endings[outcome.choice] = outcome
                case _:
                    raise outcome
        return self._completion([endings[choice] for choice in range(self._choices)])

    def _completion(self, endings: list[Ended]) -> Completion:
        first = endings[0].usage
        usage = Usage(
            prompt_tokens=first.prompt_tokens,
            cached_tokens=first.cached_tokens,
            completion_tokens=sum(ended.usage.completion_tokens for ended in endings),
            steps=max(ended.usage.steps for ended in endings),
        )
        timings = Timings(self._first_token_seconds, time.monotonic() - self._arrived)
        return Completion(tuple(ended.reason for ended in endings), usage, timings)
