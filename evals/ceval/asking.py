"""Asks until everything is answered: a broken connection is made anew for what is still missing."""

from collections.abc import Callable, Mapping

from evals.ceval.channel import Channel, Refusal, Reply
from evals.ceval.errors import ConnectionBroke, GaveUp

#: Connections in a row that may bring no answer: with the pauses, a server has a minute to return.
FRUITLESS_CONNECTIONS = 6

#: Seconds before the first new connection, and the most before any.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0


def ask_all(
    channel: Channel,
    prompts: Mapping[int, str],
    take: Callable[[Reply], None],
    *,
    pause: Callable[[float], None],
    tell: Callable[[str], None],
) -> dict[int, str]:
    """Hand every answer to `take` as it comes; return what was refused, by number, with the reasons.

    `pause` waits before a new connection, `tell` hears why. Raises GaveUp, ServerUnusable.
    """
    missing, refused = dict(prompts), {}
    fruitless = 0
    while missing:
        before = len(missing)
        try:
            for outcome in channel.ask(dict(missing)):
                if isinstance(outcome, Refusal):
                    refused[outcome.number] = outcome.message
                else:
                    take(outcome)
                del missing[outcome.number]
        except ConnectionBroke as error:
            if not missing:
                break
            fruitless = fruitless + 1 if len(missing) == before else 0
            if fruitless == FRUITLESS_CONNECTIONS:
                raise GaveUp(f"{fruitless} connections in a row brought no answer: {error}") from error
            seconds = min(FIRST_PAUSE_SECONDS * 2**fruitless, LONGEST_PAUSE_SECONDS)
            tell(f"{error}; asking again for {len(missing)} answers in {seconds:g} s")
            pause(seconds)
    return refused
