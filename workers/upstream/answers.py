"""What upstream models have to make up for: fields that a server does not know, choices, counts of tokens."""

from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence

from contract import ChatMessage, Completion, Sampling, StopReason, Timings, Token, Usage

#: Fields of Sampling that are kept here where the server does not know them.
EMULATED = frozenset({"choices", "stop"})

#: Choices that are asked for at the same time where each takes a request of its own.
REQUESTS_AT_ONCE = 8

#: Tokens that a character makes at most, about: most models spell rare ones in two or three.
TOKENS_PER_WIDE_CHARACTER = 2

#: Tokens that a chat template puts around each message, at most, about.
TOKENS_PER_MESSAGE = 8


def untold(known: Collection[str]) -> tuple[str, ...]:
    """Return the fields of Sampling that must keep their defaults where a server knows only these."""
    return tuple(name for name in Sampling.__struct_fields__ if name not in known and name not in EMULATED)


def side_by_side(
    makers: Sequence[Callable[[], Generator[Token, None, Completion]]],
) -> Generator[Token, None, Completion]:
    """Yield the tokens of several answers mixed; each names its choice already."""
    waiting = deque(enumerate(makers))
    running: dict[int, Generator[Token, None, Completion]] = {}
    ended: dict[int, Completion] = {}
    try:
        while waiting or running:
            while waiting and len(running) < REQUESTS_AT_ONCE:
                choice, make = waiting.popleft()
                running[choice] = make()
            for choice, answer in list(running.items()):
                try:
                    token = next(answer)
                except StopIteration as end:
                    del running[choice]
                    ended[choice] = end.value
                else:
                    yield token
    finally:
        for answer in running.values():
            answer.close()
    return joined([ended[choice] for choice in sorted(ended)])


def joined(choices: Sequence[Completion]) -> Completion:
    """Return how several choices ended together; the prompt is the same for all and counts once."""
    reasons: tuple[StopReason, ...] = tuple(one.reason for one in choices)
    first = choices[0].usage
    completion_tokens = sum(one.usage.completion_tokens for one in choices)
    usage = Usage(first.prompt_tokens, first.cached_tokens, completion_tokens)
    return Completion(reasons, usage, Timings())


def seed_of(sampling: Sampling, choice: int) -> int | None:
    """Each choice has a seed of its own, else all would be alike."""
    return None if sampling.seed is None else (sampling.seed + choice) % 2**63


def estimated_tokens(messages: Sequence[ChatMessage]) -> int:
    """Return rather too many tokens than too few, where nobody can count them."""
    text = "".join(message.content for message in messages)
    wide = sum(not character.isascii() for character in text)
    return len(text) - wide + wide * TOKENS_PER_WIDE_CHARACTER + len(messages) * TOKENS_PER_MESSAGE
