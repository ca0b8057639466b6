"""What the model said: a task's tokens put together, one turn for each choice."""

from collections.abc import Sequence
from typing import NamedTuple

from contract import Token, TokenLogprob


class Turn(NamedTuple):
    """One choice, whole; `logprobs` are empty unless they were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


def join_turns(tokens: Sequence[Token], choices: int) -> tuple[Turn, ...]:
    """Return the turns of so many choices, whose tokens may come mixed."""
    spoken: list[list[Token]] = [[] for _ in range(choices)]
    for token in tokens:
        spoken[token.choice].append(token)
    return tuple(_join(one) for one in spoken)


def _join(tokens: Sequence[Token]) -> Turn:
    logprobs = tuple(logprob for token in tokens for logprob in token.logprobs)
    return Turn("".join(token.text for token in tokens), logprobs)
