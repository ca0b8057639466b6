"""Which prefixes are known, and that no two of them are taken for each other."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from engine.path_index import ROOT_PATH, PathIndex
from tests.properties import examples

SIZE = 4


def publish(index, tokens, size=SIZE):
    """Make all full blocks of a text known; return the path behind each."""
    paths = [ROOT_PATH]
    for place in range(len(tokens) // size):
        paths.append(index.publish(index.content(paths[-1], place, tokens)))
    return paths[1:]


def test_the_longest_known_prefix_is_found_block_by_block_and_leaves_a_token():
    index = PathIndex(SIZE)
    first, second = publish(index, list(range(8)))
    assert index.match(list(range(9))) == [first, second]
    assert index.match(list(range(8))) == [first]
    assert index.match([*range(7), 99, 8]) == [first]
    assert index.match([99, *range(1, 9)]) == index.match([0, 1, 2, 3]) == index.match([]) == []


def test_a_content_is_its_tokens_and_the_path_to_them():
    index = PathIndex(SIZE)
    assert index.content(ROOT_PATH, 0, [1, 2, 3, 4, 5]) == (ROOT_PATH, (1, 2, 3, 4))
    assert index.content(7, 1, [1, 2, 3, 4, 5, 6, 7, 8]) == (7, (5, 6, 7, 8))


def test_there_is_no_content_before_all_its_tokens_are_there():
    index = PathIndex(SIZE)
    assert index.content(ROOT_PATH, 0, [1, 2, 3]) is None
    with pytest.raises(AssertionError, match="before it is full"):
        index.publish(None)


def test_the_same_text_leads_along_the_same_path():
    index = PathIndex(SIZE)
    assert publish(index, [1] * 8) == publish(index, [1] * 8)


def test_equal_tokens_behind_another_past_are_another_path():
    index = PathIndex(SIZE)
    one, other = publish(index, [1, 1, 1, 1, 5, 5, 5, 5]), publish(index, [2, 2, 2, 2, 5, 5, 5, 5])
    assert not {*one} & {*other}
    assert index.match([2, 2, 2, 2, 5, 5, 5, 5, 0]) == other


def test_what_hangs_on_a_forgotten_path_is_not_found_by_those_who_compute_it_again():
    index = PathIndex(SIZE)
    first, second = publish(index, [1] * 8)
    index.forget(first)
    assert index.match([1] * 9) == []
    (again,) = publish(index, [1] * 4)
    assert again not in {first, second}
    assert index.match([1] * 9) == [again]


class Texts(RuleBasedStateMachine):
    """Texts of a small alphabet become known and are forgotten, by a plain list of prefixes beside it."""

    @initialize(size=st.integers(1, 3))
    def begin(self, size):
        self.size = size
        self.index = PathIndex(size)
        #: path → the text from its beginning to the path's end; what is known, and all that ever was.
        self.known = {}
        self.ever = {}

    @rule(tokens=st.lists(st.integers(0, 1), max_size=9))
    def become_known(self, tokens):
        for place, path in enumerate(publish(self.index, tokens, self.size)):
            text = tokens[: (place + 1) * self.size]
            assert self.ever.setdefault(path, text) == text
            self.known[path] = text

    @rule(tokens=st.lists(st.integers(0, 1), max_size=9))
    def match(self, tokens):
        paths = self.index.match(tokens)
        assert len(paths) * self.size < max(1, len(tokens))
        for place, path in enumerate(paths):
            assert self.known[path] == tokens[: (place + 1) * self.size]

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def forget(self, data):
        path = data.draw(st.sampled_from(sorted(self.known)))
        text = self.known.pop(path)
        self.index.forget(path)
        assert path not in self.index.match([*text, 0])


TestTexts = Texts.TestCase
TestTexts.settings = examples(100, steps=40)
