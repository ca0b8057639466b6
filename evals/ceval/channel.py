"""What both ways of asking a server have in common."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Wish:
    """How answers are wanted: a letter chosen by its probability, or free text of at most so many tokens."""

    predicts: bool = True
    max_tokens: int | None = None


@dataclass(frozen=True)
class Reply:
    """An answer; the time to its first token in seconds, where the server tells it."""

    number: int
    answer: str
    first_token_seconds: float | None = None


@dataclass(frozen=True)
class Refusal:
    """A question that the server will not answer, and why."""

    number: int
    message: str


@dataclass(frozen=True)
class Speed:
    """The server's own figures over all its clients."""

    tokens_per_second: float
    first_token_seconds: float


class Channel(Protocol):
    """One way of asking a server; `speed` is known after everything was answered, if at all."""

    speed: Speed | None

    def ask(self, prompts: Mapping[int, str]) -> Generator[Reply | Refusal, None, None]:
        """Ask everything, by number, and yield what comes back in any order, each number at most once.

        Ends when everything was answered. Raises ConnectionBroke where the rest may be asked again,
        ServerUnusable where that would not help.
        """
        ...

    def close(self) -> None:
        """Let go of what is kept between two calls of `ask`."""
        ...
