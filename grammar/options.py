"""Answers that come down to one of a few options: a few free words, then the option's letter.

A model that gets there by itself writes `B`, or `答案是B`. One that does not is stopped after LEAD_TOKENS
and led there: `根据题意，本题考查的是…` becomes `根据题意，本题考查的是…⏎答案：B`.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract import PredictOption
from grammar.vocabulary import Vocabulary

#: Tokens that the model may write before its answer's letter: "The correct answer is: **B**" and
#: "根据题目描述，正确答案是B" have room, an explanation has not.
LEAD_TOKENS = 12

#: What is put before the letter of a model that did not get there by itself.
LEAD_IN = "\n答案："

#: What may be an option: something that stands by itself in any text.
_OPTION = re.compile(r"[0-9A-Za-z]+")

#: What a token that tells an option may hold before and behind it; `°C`, `A股` and ` Dé` tell none.
_BEFORE = r"""[\s:：(（\[【"'“‘*]*"""
_BEHIND = r"""[\s.。,，、:：)）\]】"'”’*]*"""


class OptionGrammar:
    """The options made ready for one vocabulary; shared by all answers over them.

    Raises ValueError if there is no option, one stands twice or is not made of ASCII letters and digits,
    or the vocabulary has no token that is that option and nothing else.
    """

    def __init__(self, form: PredictOption, vocabulary: Vocabulary) -> None:
        _check(form.options)
        self.telling = _telling(form.options, vocabulary)
        self.spellings = _spellings(form.options, vocabulary)
        self.words: NDArray[np.bool_] = np.array([bool(token) for token in vocabulary.tokens], np.bool_)
        self.lead_in = vocabulary.spell(LEAD_IN)
        self.tokens = vocabulary.tokens

    def start(self) -> "OptionConstraint":
        """Return the state of an answer that has not begun."""
        return OptionConstraint(self)


class OptionConstraint:
    """The state of one answer: how many tokens were written, and whether the last one ended in a word."""

    def __init__(self, grammar: OptionGrammar) -> None:
        self._grammar = grammar
        self._written = 0
        self._is_in_word = False
        self._is_finished = False

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    @property
    def may_end(self) -> bool:
        return self._is_finished

    def prepare(self) -> None:
        """There is nothing to work out."""

    def allowed(self) -> list[int] | NDArray[np.bool_]:
        if self._is_finished:
            return []
        if self._written < LEAD_TOKENS:
            return self._grammar.words
        return self._given()[:1] or self._grammar.spellings

    def advance(self, token: int) -> None:
        allowed = self.allowed()
        is_allowed = token in allowed if isinstance(allowed, list) else bool(allowed[token])
        if not is_allowed:
            raise ValueError(f"token {token} is not allowed here")
        spoken = self._grammar.tokens[token] or b""
        goes_on_with_word = self._is_in_word and spoken[:1].isalnum()
        is_letters_place = self._written < LEAD_TOKENS or not self._given()
        self._is_finished = is_letters_place and token in self._grammar.telling and not goes_on_with_word
        self._is_in_word = spoken[-1:].isalnum()
        self._written += 1

    def take_forced(self) -> list[int]:
        if self._is_finished or self._written < LEAD_TOKENS:
            return []
        taken = self._given()
        self._written += len(taken)
        self._is_in_word = False
        return taken

    def _given(self) -> list[int]:
        """Return what is left of the lead-in, once the model's own words have come to their bound."""
        return list(self._grammar.lead_in[self._written - LEAD_TOKENS :])


def last_option(text: str, options: Sequence[str]) -> str | None:
    """Return the option that a whole answer comes down to, None if there is none in it."""
    found = re.findall(rf"(?<![0-9A-Za-z])(?:{'|'.join(options)})(?![0-9A-Za-z])", text)
    return found[-1] if found else None


def _check(options: Sequence[str]) -> None:
    if not options:
        raise ValueError("options: there must be at least one")
    if len(set(options)) < len(options):
        raise ValueError("options: one of them stands twice")
    for option in options:
        if not _OPTION.fullmatch(option):
            raise ValueError(f"options: {option!r} is not made of ASCII letters and digits")


def _telling(options: Sequence[str], vocabulary: Vocabulary) -> frozenset[int]:
    """Return the tokens that tell an option, with nothing but punctuation around it."""
    alone = re.compile(f"{_BEFORE}(?:{'|'.join(options)}){_BEHIND}")
    return frozenset(
        id_
        for id_, token in enumerate(vocabulary.tokens)
        if token and alone.fullmatch(token.decode(errors="replace"))
    )


def _spellings(options: Sequence[str], vocabulary: Vocabulary) -> list[int]:
    """Return the tokens that are an option, with or without a space before it."""
    option_of = {spelling.encode(): option for option in options for spelling in (option, f" {option}")}
    ids = [id_ for id_, token in enumerate(vocabulary.tokens) if token in option_of]
    missing = set(options) - {option_of[vocabulary.tokens[id_] or b""] for id_ in ids}
    if missing:
        raise ValueError(f"options: the vocabulary has no token that is {min(missing)!r}")
    return ids
