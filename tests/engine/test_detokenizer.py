"""From tokens back to text, whatever way the text was cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.detokenizer import Detokenizer
from grammar import Vocabulary
from tests import vocabularies
from tests.properties import examples

#: Texts with characters of one to four bytes; lone surrogates cannot be written in UTF-8.
TEXTS = st.text(
    st.one_of(st.sampled_from("aab \n中é😀👩\u200d💻"), st.characters(exclude_categories=["Cs"])), max_size=30
)


def cut(content, borders):
    """Return the bytes in pieces."""
    places = sorted({0, len(content), *(border % (len(content) + 1) for border in borders)})
    return [content[start:end] for start, end in pairwise(places)]


def detokenizer_of(pieces, stop=(), **options):
    """Return a detokenizer whose tokens are the pieces, and None as the last."""
    return Detokenizer(Vocabulary([*pieces, None], lambda _: (), **options), stop)


def feed_all(detokenizer, groups):
    """Feed group after group until a stop string is found; return what each gave, and the end's rest."""
    said = []
    for group in groups:
        said.append(detokenizer.feed(group))
        if detokenizer.found_stop:
            break
    return [*said, detokenizer.finish()]


def text_before_stop(text, stops):
    """What is said of a text that comes character by character: the stop string that is whole first cuts."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@examples(300)
@given(text=TEXTS, borders=st.lists(st.integers(0, 200), max_size=40))
def test_any_split_of_a_text_comes_back_as_soon_as_it_is_whole(text, borders):
    pieces = cut(text.encode(), borders)
    detokenizer = detokenizer_of(pieces)
    said = ""
    for place in range(len(pieces)):
        said += detokenizer.feed([place])
        known = b"".join(pieces[: place + 1]).decode(errors="ignore")
        assert said == known
    assert said + detokenizer.finish() == text
    assert not detokenizer.found_stop


@examples(300)
@given(
    text=st.text("ab中", max_size=16),
    stops=st.lists(st.text("ab中", min_size=1, max_size=5), max_size=4),
    borders=st.lists(st.integers(0, 100), max_size=30),
)
def test_a_stop_string_never_leaks_however_it_is_split(text, stops, borders):
    pieces = cut(text.encode(), borders)
    detokenizer = detokenizer_of(pieces, stops)
    said = feed_all(detokenizer, [[place] for place in range(len(pieces))])
    assert ("".join(said), detokenizer.found_stop) == text_before_stop(text, stops)


@examples(200)
@given(
    content=st.lists(
        st.sampled_from([b"a", b"\xe4", b"\xb8", b"\xad", b"\xf0\x9f", b"\xff", b"\xed\xa0"]), max_size=12
    ),
    stops=st.lists(st.sampled_from(["a", "aa", "中a", "\ufffd"]), max_size=2),
    sizes=st.lists(st.integers(1, 4), min_size=12, max_size=12),
)
def test_the_text_follows_from_the_ids_not_from_how_they_are_fed(content, stops, sizes):
    ids = list(range(len(content)))
    groups, rest = [], ids
    for size in sizes:
        groups.append(rest[:size])
        rest = rest[size:]
    together, one_by_one = detokenizer_of(content, stops), detokenizer_of(content, stops)
    assert "".join(feed_all(together, groups)) == "".join(feed_all(one_by_one, [[id_] for id_ in ids]))


def test_nothing_is_held_back_longer_than_it_may_become_a_stop_string():
    detokenizer = detokenizer_of([b"a", b"b", b"c"], ["abc", "bb"])
    assert [detokenizer.feed([id_]) for id_ in (2, 0, 1, 0, 1)] == ["c", "", "", "ab", ""]
    assert not detokenizer.found_stop
    assert detokenizer.finish() == "ab"


def test_after_a_stop_string_nothing_is_said():
    detokenizer = detokenizer_of([b"a", b"b"], ["b"])
    assert detokenizer.feed([0, 1, 0]) == "a"
    assert detokenizer.found_stop
    assert detokenizer.feed([0]) == detokenizer.finish() == ""


def test_half_a_character_at_the_end_is_dropped():
    detokenizer = detokenizer_of([b"a\xe4\xb8"])
    assert detokenizer.feed([0]) == "a"
    assert detokenizer.finish() == ""


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"\xff", b"a"], "\ufffda"),
        ([b"\xe4\xb8", b"a"], "\ufffda"),
        ([b"\x80"], "\ufffd"),
        ([b"\xf0\x9f", b"\xf0\x9f\x98\x80"], "\ufffd😀"),
    ],
)
def test_bytes_that_are_no_text_become_replacement_characters(pieces, text):
    assert "".join(feed_all(detokenizer_of(pieces), [[id_] for id_ in range(len(pieces))])) == text


def test_special_tokens_do_not_break_a_character():
    detokenizer = detokenizer_of([b"\xe4\xb8", b"\xad"])
    assert [detokenizer.feed([id_]) for id_ in (0, 2, 1)] == ["", "", "中"]


@pytest.mark.parametrize(
    ("pieces", "text"), [([b" a", b" b"], "a b"), ([b"", b" ", b" a"], " a"), ([b"a "], "a ")]
)
def test_only_sentencepiece_takes_the_first_space(pieces, text):
    ids = list(range(len(pieces)))
    assert "".join(feed_all(detokenizer_of(pieces, drops_first_space=True), [[id_] for id_ in ids])) == text
    assert "".join(feed_all(detokenizer_of(pieces), [ids])) == b"".join(pieces).decode()


@examples(40)
@given(text=TEXTS)
@pytest.mark.parametrize("make", vocabularies.ALL, ids=lambda make: make.__name__)
def test_known_vocabularies_say_what_they_spell(make, text):
    vocabulary = make()
    detokenizer = Detokenizer(vocabulary)
    said = "".join(feed_all(detokenizer, [[id_] for id_ in vocabulary.spell(text)]))
    assert said == (text.removeprefix(" ") if vocabulary.drops_first_space else text)
