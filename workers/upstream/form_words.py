"""What a form means to a model that only reads words: how to ask for it, and what is wrong with an answer."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache

from contract import (
    AnswerForm,
    CannotDo,
    ChatMessage,
    Choices,
    ChooseRows,
    Ebnf,
    JsonObject,
    JsonSchema,
    PredictOption,
    Regex,
)
from grammar import CompiledGrammar, Vocabulary, compile_grammar

#: Compiled forms that are kept: the same few are asked for again and again.
FORMS_KEPT = 32

#: Characters that a complaint shows of what was wrong.
SHOWN_CHARACTERS = 60

#: What answers are checked in: a token for every byte.
_BYTES = Vocabulary([bytes([byte]) for byte in range(256)], lambda text: list(text.encode()))

_FENCED = re.compile(r"```[\w-]*\n(.*)\n```", re.DOTALL)


@lru_cache(maxsize=FORMS_KEPT)
def compiled(form: AnswerForm) -> CompiledGrammar:
    """Return the form ready to check answers. Raises CannotDo if it is wrong or not supported."""
    try:
        return compile_grammar(form, _BYTES)
    except ValueError as error:
        raise CannotDo(f"form: {error}") from error


def with_words(messages: Sequence[ChatMessage], form: AnswerForm) -> tuple[ChatMessage, ...]:
    """Return the conversation, its last question asking for the form in words."""
    *before, last = messages
    return (*before, ChatMessage(last.role, f"{last.content}\n\n{in_words(form)}"))


def in_words(form: AnswerForm) -> str:
    """Say to a model what its answer has to look like."""
    match form:
        case ChooseRows(_, at_most, none_allowed):
            none = "If none fits, answer {}." if none_allowed else "Choose at least one."
            return (
                'Answer with nothing but a JSON object: its keys are "1", "2", … in this order, its values '
                f"at most {at_most} of the texts listed above, each copied exactly, none twice. {none}"
            )
        case JsonSchema(schema):
            return (
                "Answer with nothing but a JSON text that is valid under this schema, its properties in "
                f"the schema's order:\n{schema}"
            )
        case JsonObject():
            return "Answer with nothing but a JSON object."
        case Regex(pattern):
            return f"Answer with nothing but a text that this regular expression matches whole:\n{pattern}"
        case Ebnf(grammar):
            return f"Answer with nothing but a text of the rule root of this grammar:\n{grammar}"
        case Choices(texts):
            lines = "\n".join(texts)
            return f"Answer with nothing but one of these lines, copied exactly:\n{lines}"
        case PredictOption(options):
            return f"Answer with nothing but one of {', '.join(options)}."


def fitted(text: str, form: AnswerForm) -> str:
    """Return the answer as the form wants it, without a fence or white space around it.

    Raises ValueError, which says to the model what is wrong.
    """
    text = text.strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1].strip()
    if isinstance(form, ChooseRows | JsonSchema | JsonObject):
        try:
            text = json.dumps(json.loads(text), ensure_ascii=False)
        except (ValueError, RecursionError) as error:
            raise ValueError("it is not JSON") from error
    if isinstance(form, ChooseRows):
        _check_rows(text, form)
    _check(text, form)
    return text


def _check_rows(text: str, form: ChooseRows) -> None:
    """Say what is wrong in words that a model can follow; the grammar would only say where."""
    chosen = json.loads(text)
    if not isinstance(chosen, dict):
        raise ValueError("it is not a JSON object")
    for value in chosen.values():
        if value not in form.values:
            shown = json.dumps(value, ensure_ascii=False)[:SHOWN_CHARACTERS]
            raise ValueError(f"{shown} is not one of the texts")
    if len(set(chosen.values())) < len(chosen):
        raise ValueError("it holds a text twice")
    if len(chosen) > form.at_most:
        raise ValueError(f"it holds {len(chosen)} texts, more than {form.at_most}")
    if not chosen and form.values and not form.none_allowed:
        raise ValueError("it holds no text, but at least one must be chosen")


def _check(text: str, form: AnswerForm) -> None:
    constraint = compiled(form).start()
    spelled = text.encode()
    for place, byte in enumerate(spelled):
        try:
            constraint.advance(byte)
        except ValueError as error:
            shown = spelled[place:].decode(errors="replace")[:SHOWN_CHARACTERS]
            raise ValueError(f"it is not right from {shown!r} on") from error
    if not (constraint.may_end or constraint.is_finished):
        raise ValueError("it is not whole")
