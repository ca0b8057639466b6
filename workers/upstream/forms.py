"""Answers in a form from a model that cannot be held to it: asked for in words, checked, asked for again."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

from msgspec.structs import replace

from contract import (
    AnswerForm,
    CannotDo,
    ChatMessage,
    Choices,
    ChooseRows,
    Completion,
    InvalidRequest,
    OutputInvalid,
    PredictOption,
    Sampling,
    StopReason,
    Timings,
    Token,
    Usage,
)
from workers.upstream.answers import seed_of
from workers.upstream.form_words import compiled, fitted, in_words, with_words
from workers.upstream.stops import StopCut

#: Times that an answer is asked for before it is given up.
TRIES = 3

#: Asks the model: messages, how to sample, and fields that name a form; see OpenAIModel and YuanModel.
Ask = Callable[[Sequence[ChatMessage], Sampling, Mapping[str, Any]], Generator[Token, None, Completion]]

#: Gives the fields by which the upstream is told a form, None if there are none.
NativeForm = Callable[[AnswerForm], dict[str, Any] | None]


def answer_in_form(
    ask: Ask,
    messages: Sequence[ChatMessage],
    sampling: Sampling,
    form: AnswerForm,
    native: NativeForm,
    *,
    keeps_forms: bool,
) -> Generator[Token, None, Completion]:
    """Yield an answer in the form.

    An upstream that keeps to forms is passed on as it speaks and checked at the end; from others only a
    right answer is passed on. Raises CannotDo, and OutputInvalid if no try gave a right answer.
    """
    if isinstance(form, PredictOption):
        form = Choices(form.options)
    compiled(form)
    fields = native(form)
    if fields is not None and keeps_forms and not isinstance(form, ChooseRows):
        return (yield from _checked_at_the_end(ask, messages, sampling, form, fields))
    if messages[-1].role == "assistant":
        raise CannotDo("form: this model cannot go on with an answer in a form")
    if sampling.logprobs is not None:
        raise CannotDo("logprobs: not known of an answer in a form from this model")
    reasons: list[StopReason] = []
    usages: list[Usage] = []
    for choice in range(sampling.choices):
        own = replace(sampling, choices=1, stop=(), seed=seed_of(sampling, choice))
        asked = _asked_until_right(ask, with_words(messages, form), own, form, fields)
        text, completion = yield from asked
        cut = StopCut(sampling.stop)
        shown = cut.feed(text) + cut.flush()
        yield Token(0, (), shown, choice)
        reasons.append("stop" if cut.is_cut else completion.reason)
        usages.append(completion.usage)
    return Completion(tuple(reasons), sum_of(usages), Timings())


def sum_of(usages: Sequence[Usage]) -> Usage:
    """Return what several requests took together; the prompt counts each time that it was sent."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )


def _checked_at_the_end(
    ask: Ask,
    messages: Sequence[ChatMessage],
    sampling: Sampling,
    form: AnswerForm,
    fields: Mapping[str, Any],
) -> Generator[Token, None, Completion]:
    texts = [""] * sampling.choices
    asked = ask(messages, sampling, fields)
    with closing(asked):
        while True:
            try:
                token = next(asked)
            except StopIteration as end:
                completion: Completion = end.value
                break
            texts[token.choice] += token.text
            yield token
    for text, reason in zip(texts, completion.reasons, strict=True):
        if reason == "stop" and not sampling.stop:  # what was cut off is right as far as it goes
            try:
                fitted(text, form)
            except ValueError as error:
                raise OutputInvalid(f"the upstream's answer is not of the form: {error}") from error
    return completion


def _asked_until_right(
    ask: Ask,
    messages: Sequence[ChatMessage],
    sampling: Sampling,
    form: AnswerForm,
    fields: Mapping[str, Any] | None,
) -> Generator[Token, None, tuple[str, Completion]]:
    """Yield empty tokens meanwhile; return a right answer and what all tries took."""
    usages: list[Usage] = []
    conversation = tuple(messages)
    complaint = ""
    for _ in range(TRIES):
        try:
            text, completion = yield from _silently(ask(conversation, sampling, fields or {}))
        except (InvalidRequest, CannotDo):
            if fields is None:
                raise
            fields = None  # a form that this upstream does not take: words alone, then
            text, completion = yield from _silently(ask(conversation, sampling, {}))
        usages.append(completion.usage)
        if completion.reason == "length":
            raise OutputInvalid("the answer was cut off before it was whole; allow it more tokens")
        try:
            return fitted(text, form), replace(completion, usage=sum_of(usages))
        except ValueError as error:
            complaint = str(error)
        again = f"That is wrong: {complaint}. {in_words(form)}"
        conversation = (*messages, ChatMessage("assistant", text), ChatMessage("user", again))
    raise OutputInvalid(f"the model did not answer in the form within {TRIES} tries: {complaint}")


def _silently(asked: Generator[Token, None, Completion]) -> Generator[Token, None, tuple[str, Completion]]:
    """Return the whole text; yield each token empty, so that whoever waits may leave."""
    texts: list[str] = []
    with closing(asked):
        while True:
            try:
                token = next(asked)
            except StopIteration as end:
                return "".join(texts), end.value
            texts.append(token.text)
            yield Token(0, (), "")
