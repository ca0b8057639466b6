"""How texts are spelled in tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grammar import Vocabulary
from tests.properties import examples

BYTES = [bytes([byte]) for byte in range(256)]


@examples(60)
@given(text=st.text(max_size=30))
def test_a_spelling_is_exact_and_holds_no_special_token(vocabulary, text):
    ids = vocabulary.spell(text)
    assert vocabulary.bytes_of(ids) == text.encode()
    assert all(vocabulary.tokens[id_] for id_ in ids)


def test_the_tokenizers_own_spelling_is_taken_where_it_is_exact():
    vocabulary = Vocabulary([b"a", b"b", b"ab"], lambda text: [b"ab".index(byte) for byte in text.encode()])
    assert vocabulary.spell("ab") == (0, 1)


@pytest.mark.parametrize(
    "encoded",
    [(4, 0, 1), (2,), (5, 0, 1), ()],
    ids=["space first", "a byte short", "special", "nothing"],
)
def test_a_spelling_that_is_not_exact_is_replaced(encoded):
    vocabulary = Vocabulary([b"a", b"b", b"a", b"ab", b" ", None], lambda _: encoded)
    assert vocabulary.bytes_of(vocabulary.spell("ab")) == b"ab"
    assert vocabulary.spell("ab") == (3,)


def test_of_two_equal_tokens_the_later_is_taken():
    """Sentencepiece's byte tokens come first and stand for characters without a token of their own."""
    vocabulary = Vocabulary([b"a", b"b", b"a"], lambda _: ())
    assert vocabulary.spell("ab") == (2, 1)


def test_a_missing_byte_is_named():
    vocabulary = Vocabulary(BYTES[:0x80], lambda text: list(text.encode()) if text.isascii() else ())
    with pytest.raises(ValueError, match="0xc3"):
        vocabulary.spell("é")


def test_half_a_surrogate_pair_cannot_be_spelled():
    with pytest.raises(ValueError):
        Vocabulary(BYTES, lambda text: list(text.encode())).spell("\ud800")


def test_an_empty_text_needs_no_token(vocabulary):
    assert vocabulary.spell("") == ()


def test_special_tokens_say_nothing():
    assert Vocabulary([b"a", None, b""], lambda _: ()).bytes_of([0, 1, 2, 0]) == b"aa"
