"""What every upstream model does when it is asked: refuse what it cannot be told, and take the time."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing

from msgspec.structs import replace

from contract import (
    AnswerForm,
    CannotDo,
    ChatMessage,
    Completion,
    ModelCard,
    Sampling,
    Timings,
    Token,
    WorkerLost,
)
from workers.upstream.forms import Ask, NativeForm, answer_in_form


def next_turn(
    card: ModelCard,
    ask: Ask,
    messages: Sequence[ChatMessage],
    sampling: Sampling,
    form: AnswerForm | None,
    said: Sequence[Sequence[int]],
    native: NativeForm = lambda form: None,
    *,
    keeps_forms: bool = False,
) -> Generator[Token, None, Completion]:
    """Yield the assistant's next turn; see `contract.Model`, and for the last two `answer_in_form`.

    Raises WorkerLost if something was `said`: upstreams' tokens have no ids that could be gone on from.
    """
    started = time.monotonic()
    if any(said):
        raise WorkerLost("the worker was lost, and an upstream cannot go on with what it had said")
    _see_that_it_can(card, messages, sampling)
    if form is None:
        asked = ask(messages, sampling, {})
    else:
        asked = answer_in_form(ask, messages, sampling, form, native, keeps_forms=keeps_forms)
    return (yield from _timed(asked, started))


def _see_that_it_can(card: ModelCard, messages: Sequence[ChatMessage], sampling: Sampling) -> None:
    """Raise CannotDo, naming the parameter, if the upstream has no way to be told."""
    usual = Sampling()
    for name in card.capabilities.cannot_sample:
        if getattr(sampling, name) != getattr(usual, name):
            raise CannotDo(f"{name}: the model {card.name} cannot be told this; leave it out")
    if messages[-1].role == "assistant" and not card.capabilities.goes_on:
        raise CannotDo(f"messages: the model {card.name} cannot go on with an answer that has begun")


def _timed(asked: Generator[Token, None, Completion], started: float) -> Generator[Token, None, Completion]:
    """Pass the tokens on; return the completion with how long it took since `started`."""
    first_token_seconds = 0.0
    with closing(asked):
        while True:
            try:
                token = next(asked)
            except StopIteration as end:
                total_seconds = time.monotonic() - started
                completion: Completion = end.value
                return replace(completion, timings=Timings(first_token_seconds, total_seconds))
            if not token.is_empty:
                first_token_seconds = first_token_seconds or time.monotonic() - started
            yield token
