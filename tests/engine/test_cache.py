"""Which block holds what."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.cache import BlockCache
from tests.engine.slots import check_bookkeeping
from tests.properties import examples

SIZE = 4


def write(cache, tokens):
    """Let a sequence compute all its tokens; return its blocks."""
    blocks = cache.match(tokens)
    first = len(blocks)
    while len(blocks) * cache.block_tokens < len(tokens):
        block = cache.allocate()
        assert block is not None
        blocks.append(block)
    for index in range(first, len(tokens) // SIZE):
        cache.publish(blocks, index, tokens)
    return blocks


def matched(cache, tokens):
    """Return the blocks of a known prefix without holding them."""
    blocks = cache.match(tokens)
    cache.release(blocks)
    return blocks


def test_a_known_prefix_is_shared_by_whole_blocks_and_leaves_a_token_to_compute():
    cache = BlockCache(8, SIZE)
    blocks = write(cache, list(range(8)))
    assert matched(cache, list(range(8))) == blocks[:1]
    assert matched(cache, list(range(9))) == blocks
    assert matched(cache, [*range(7), 99, 8, 9]) == blocks[:1]
    assert matched(cache, [99, *range(1, 8), 8]) == []
    assert matched(cache, []) == matched(cache, [0]) == matched(cache, [0, 1, 2, 3]) == []


def test_equal_tokens_behind_another_past_are_another_content():
    cache = BlockCache(8, SIZE)
    write(cache, [1, 1, 1, 1, 5, 5, 5, 5, 0])
    other = write(cache, [2, 2, 2, 2, 5, 5, 5, 5, 0])
    assert matched(cache, [2, 2, 2, 2, 5, 5, 5, 5, 7]) == other[:2]


def test_what_nobody_holds_is_kept_until_room_is_needed_and_then_goes_oldest_and_deepest_first():
    cache = BlockCache(4, SIZE)
    old, new = write(cache, [1] * 8), write(cache, [2] * 4)
    cache.release(old)
    cache.release(new)
    assert cache.available == 4
    unused = ({0, 1, 2, 3} - {*old, *new}).pop()
    assert [cache.allocate() for _ in range(4)] == [unused, old[1], old[0], new[0]]
    assert cache.allocate() is None
    assert cache.available == 0
    assert matched(cache, [1] * 9) == matched(cache, [2] * 9) == []


def test_a_prefix_outlives_what_hangs_on_it():
    cache = BlockCache(2, SIZE)
    blocks = write(cache, [1] * 8)
    cache.release(blocks)
    cache.allocate()
    assert matched(cache, [1] * 9) == blocks[:1]


def test_a_match_makes_a_prefix_young_again():
    cache = BlockCache(2, SIZE)
    for token in (1, 2):
        cache.release(write(cache, [token] * 4))
    matched(cache, [1] * 5)
    cache.allocate()
    assert len(matched(cache, [1] * 5)) == 1
    assert matched(cache, [2] * 5) == []


def test_two_who_compute_the_same_at_once_do_not_disturb_each_other():
    cache = BlockCache(6, SIZE)
    text = [7] * 8
    first, second = [[cache.allocate(), cache.allocate()] for _ in range(2)]
    for index in range(2):
        for blocks in (first, second):
            cache.publish(blocks, index, text)
    cache.release(first)
    assert matched(cache, [*text, 0]) == first
    for _ in range(4):
        cache.allocate()
    assert matched(cache, [*text, 0]) == []
    cache.release(second)
    assert cache.available == 2


def test_a_block_cannot_be_released_twice():
    cache = BlockCache(2, SIZE)
    block = cache.allocate()
    cache.release([block])
    with pytest.raises(AssertionError, match="twice"):
        cache.release([block])


class Holders(RuleBasedStateMachine):
    """Sequences grow by tokens of a small alphabet, end, and take over what is known."""

    @initialize(blocks=st.integers(1, 9), size=st.integers(1, 3))
    def begin(self, blocks, size):
        self.cache = BlockCache(blocks, size)
        self.texts = []
        self.holdings = []
        #: block → the text from its beginning to the block's end, as it was last computed.
        self.content = {}

    @rule(tokens=st.lists(st.integers(0, 1), max_size=12))
    def arrive(self, tokens):
        blocks = self.cache.match(tokens)
        size = self.cache.block_tokens
        assert len(blocks) * size < max(1, len(tokens))
        for index, block in enumerate(blocks):
            assert self.content[block] == tokens[: (index + 1) * size]
        self.texts.append(tokens[: len(blocks) * size])
        self.holdings.append(blocks)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def grow(self, data):
        place = data.draw(st.integers(0, len(self.texts) - 1))
        size = self.cache.block_tokens
        block = self.cache.allocate()
        if block is None:
            assert self.cache.available == 0
            return
        self.holdings[place].append(block)
        self.texts[place] = self.texts[place] + data.draw(
            st.lists(st.integers(0, 1), min_size=size, max_size=size)
        )
        self.content[block] = self.texts[place]
        index = len(self.holdings[place]) - 1
        self.cache.publish(self.holdings[place], index, self.texts[place])

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def leave(self, data):
        place = data.draw(st.integers(0, len(self.texts) - 1))
        del self.texts[place]
        self.cache.release(self.holdings.pop(place))

    @invariant()
    def every_block_has_one_role(self):
        if hasattr(self, "cache"):
            check_bookkeeping(self.cache, self.holdings)


TestHolders = Holders.TestCase
TestHolders.settings = examples(100, steps=40)
