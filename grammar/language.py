"""Answers that are texts of a formal language, kept by llguidance's parser."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from grammar.constraint import Allowed
from grammar.vocabulary import Vocabulary

#: Allowed ids are listed up to so many; picking more out of the logits costs more than masking all.
LISTED_IDS = 1024

#: Vocabularies whose token trie is kept; a worker has one model, tests have several.
TRIES_KEPT = 8

#: Bytes that can stand in UTF-8; a vocabulary must have a token for each, or answers get stuck.
UTF8_BYTES = frozenset(range(256)) - {0xC0, 0xC1} - frozenset(range(0xF5, 0x100))

#: What one answer may cost. The library's own units: roughly 100,000 fuel are 10 ms, 1,000 lexer
#: states 1 to 2 MB; 1,000 items in a row are about 250 optional properties of one object.
LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_items_in_row=1_000,
    max_lexer_states=30_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)

#: Processor seconds from which one token counts as costly, and what an answer may spend on such tokens:
#: an ambiguous grammar would hold up everyone else's answers. Most tokens take 0.1 ms.
COSTLY_SECONDS = 0.02
MOST_COSTLY_SECONDS = 1.0

#: What the parser's complaints mean to whoever wrote the form, by words in them.
COMPLAINTS = {
    "NoExtension": "nothing can be said in it",
    "oneOf constraints": "schema: oneOf is supported only where plainly no two of its schemas can both hold",
    "Current row has": "too much is open at one place (hundreds of optional properties?)",
    "lexer error: too many": "it is too complex to keep",
    "Too many items": "it is too complex to keep",
    "configuration (grammar) too big": "it is too complex to keep",
    "schema too large": "it is too complex to keep",
    "lexer precomputation failed": "it is too complex to keep",
    "fuel exhausted": "it is too complex to keep",
}

#: Characters of a complaint that are passed on.
COMPLAINT_CHARACTERS = 300


class LanguageGrammar:
    """A language in llguidance's notation for one vocabulary.

    Every answer gets a parser of its own: copies of one would share the lexer's states, so that
    many answers together would run into the limit of one.

    Raises ValueError if the notation is wrong, the language is empty or too costly to keep, or the
    vocabulary lacks a byte.
    """

    def __init__(self, notation: str, vocabulary: Vocabulary) -> None:
        self._notation = notation
        self._tokens = len(vocabulary)
        self._trie = _token_trie(vocabulary)
        trial = self.start()
        trial.prepare()
        trial.take_forced()
        trial.prepare()

    def start(self) -> "LanguageConstraint":
        """Return the state of an answer that has not begun."""
        return LanguageConstraint(
            LLMatcher(self._trie, self._notation, log_level=0, limits=LIMITS), self._tokens
        )


class LanguageConstraint:
    """The state of one answer: the parser's, and what it allows next once that is worked out."""

    def __init__(self, matcher: LLMatcher, tokens: int) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._allowed: Allowed | None = None
        self._costly_seconds = 0.0
        self._see_that_it_works()
        self._is_finished = matcher.is_stopped()

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    @property
    def may_end(self) -> bool:
        return self._matcher.is_accepting()

    def prepare(self) -> None:
        if self._is_finished or self._allowed is not None:
            return
        with self._at_a_price():
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = np.unpackbits(bits, count=self._tokens, bitorder="little").view(np.bool_)
        count = int(np.count_nonzero(mask))
        if not count and self.may_end:
            self._is_finished = True  # the parser sees some ends only here
            return
        self._see_that_it_works()
        if not count:
            raise ValueError("nothing can be said in it")
        self._allowed = np.flatnonzero(mask).tolist() if count <= LISTED_IDS else mask

    def allowed(self) -> Allowed:
        self.prepare()
        return [] if self._allowed is None else self._allowed

    def advance(self, token: int) -> None:
        with self._at_a_price():
            is_allowed = 0 <= token < self._tokens and self._matcher.try_consume_tokens([token]) == 1
        self._see_that_it_works()
        if not is_allowed:
            raise ValueError(f"token {token} is not allowed here")
        self._move_on()

    def take_forced(self) -> list[int]:
        if self._is_finished:
            return []
        with self._at_a_price():
            ids = self._matcher.compute_ff_tokens()
            if ids:
                self._matcher.consume_tokens(ids)
        self._see_that_it_works()
        if ids:
            self._move_on()
        return ids

    def _move_on(self) -> None:
        self._allowed = None
        self._is_finished = self._matcher.is_stopped()

    @contextmanager
    def _at_a_price(self) -> Iterator[None]:
        started = time.thread_time()
        yield
        seconds = time.thread_time() - started
        if seconds > COSTLY_SECONDS:
            self._costly_seconds += seconds
            if self._costly_seconds > MOST_COSTLY_SECONDS:
                raise ValueError("it takes too much time to keep")

    def _see_that_it_works(self) -> None:
        if self._matcher.is_error():
            raise ValueError(_complaint(self._matcher.get_error()))


def _complaint(error: str) -> str:
    for part, meaning in COMPLAINTS.items():
        if part in error:
            return meaning
    return " ".join(error.replace("<non-verbose/>", "").split("<state>")[0].split())[:COMPLAINT_CHARACTERS]


class _TrieSource:
    """A vocabulary as llguidance wants to be told of it, with one more token, which ends an answer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        end = len(vocabulary)
        self.eos_token_id = end
        self.bos_token_id = None
        self.tokens = [*(token or b"" for token in vocabulary.tokens), b"<end>"]
        self.special_token_ids = [*(id_ for id_, token in enumerate(vocabulary.tokens) if token is None), end]
        self._vocabulary = vocabulary

    def __call__(self, text: str) -> list[int]:
        return list(self._vocabulary.spell(text))


@lru_cache(maxsize=TRIES_KEPT)
def _token_trie(vocabulary: Vocabulary) -> LLTokenizer:
    """Arrange the vocabulary as the parser needs it: about a second for 150,000 tokens."""
    missing = UTF8_BYTES - {token[0] for token in vocabulary.tokens if token and len(token) == 1}
    if missing:
        raise ValueError(f"the vocabulary has no token for the byte {min(missing):#04x}")
    return LLTokenizer(TokenizerWrapper(_TrieSource(vocabulary)))
