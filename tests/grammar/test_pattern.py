"""Regular expressions mean here what they mean elsewhere, or they are refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import Regex
from grammar import compile_grammar
from grammar.pattern import literal
from tests.grammar.walking import accepts
from tests.vocabularies import small

PATTERNS = [
    r"\d\D\w\W\s\S", r"[\d/-]+", r"a/b|c\/d", r"^ab$", r"^a|b$", r"(?P<name>a)(?:b)(c)?", r"k|(?s:.)",
    r"a+?b*?", r"[^\]\\]{2}", r"\x41\u4e2d\t", "a\nb", "#a b", r"\.\*\+\?\(\)\[\]\{\}\^\$\|\\", "é{2,}",
]  # fmt: skip

TEXTS = ["a", "b", "ab", "aab", "abc", "K", "\n", "12/-", "1aa- a", "a/b", "c/d", "A中\t", "a\nb", "#a b",
         "éé", ".*+?()[]{}^$|\\", "xy", "٣"]  # fmt: skip

REFUSED = [
    ("a++", "possessive"),
    ("a{2}+", "possessive"),
    ("(?>a)", "group"),
    ("(?=a)b", "group"),
    ("(?x) a", "group"),
    ("(?i)a", "group"),
    ("[[a]]", r"\[ in a class"),
    ("[a&&b]", "&& in a class"),
    ("[a--b]", "-- in a class"),
    ("[]a]", "begins with"),
    ("\\", "backslash"),
    (r"a\b", "lookaround"),
    ("x^a", "lookaround"),
    (r"(a)\1", "backreference"),
    ("(", "unclosed"),
    ("a{9999999999}", "invalid"),
    ("(a{1000}){1000}", "too complex"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_what_python_matches(pattern):
    grammar = compile_grammar(Regex(pattern), small())
    meant = re.compile(pattern, re.ASCII)
    assert [text for text in TEXTS if accepts(grammar, small(), text)] == [
        text for text in TEXTS if meant.fullmatch(text)
    ]


@pytest.mark.parametrize(("pattern", "complaint"), REFUSED, ids=lambda value: value)
def test_what_would_be_read_differently_is_refused(pattern, complaint):
    with pytest.raises(ValueError, match=complaint):
        compile_grammar(Regex(pattern), small())


@settings(deadline=None, max_examples=40)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6))
def test_a_literal_is_itself(text):
    grammar = compile_grammar(Regex(literal(text)), small())
    assert accepts(grammar, small(), text)
    assert not accepts(grammar, small(), text + "x")
