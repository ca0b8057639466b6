"""Attention in plain torch: it equals the formula, whatever lies beside a span or behind its context."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.batch import Batch, Span
from engine.executors import grouped_attention
from engine.executors.grouped_attention import TILE_ROWS, GroupedAttention, group_tiles, width_for
from engine.executors.layer_cache import LayerCache
from tests.engine.paged import causal, random_cache
from tests.properties import examples

BLOCK_TOKENS = 4
BLOCKS = 160
SCALING = 0.3

#: Rows and context of spans of all kinds: first and later tokens, guesses, chunks, long ones.
SPANS = [(1, 1), (1, 7), (1, 64), (1, 65), (1, 300), (2, 9), (5, 5), (5, 130), (40, 100), (300, 310)]

#: Query heads and key heads.
HEADS = [(14, 2), (4, 4), (3, 1)]


def batch_of(spans, random) -> Batch:
    """Lay out (rows, context) behind each other, each in blocks of its own choice; the last stays empty."""
    batch = Batch([], [], [], [], [])
    for rows, context in spans:
        blocks = tuple(random.sample(range(BLOCKS), -(-context // BLOCK_TOKENS) + random.randint(0, 2)))
        batch.spans.append(Span(len(batch.tokens), rows, context, blocks))
        batch.tokens.extend([0] * rows)
        batch.positions.extend(range(context - rows, context))
        batch.slots.extend([0] * rows)
    return batch


def cache_with_empty_block(heads, dtype=torch.float32) -> LayerCache:
    cache = random_cache((BLOCKS + 1) * BLOCK_TOKENS, heads, 8, dtype=dtype)
    for part in (cache.keys, cache.values):
        part[-BLOCK_TOKENS:] = 0
    return cache


def own_slots(span: Span) -> list[int]:
    places = range(span.context_tokens)
    return [span.blocks[place // BLOCK_TOKENS] * BLOCK_TOKENS + place % BLOCK_TOKENS for place in places]


def expected_of(query, cache, batch):
    parts = []
    for span in batch.spans:
        slots = own_slots(span)
        rows = query[span.first_row : span.first_row + span.rows]
        parts.append(causal(rows, cache.keys[slots], cache.values[slots], SCALING))
    return torch.cat(parts)


@pytest.mark.parametrize("heads", HEADS)
@examples(25)
@given(spans=st.lists(st.sampled_from(SPANS), min_size=1, max_size=8), seed=st.integers(0, 1 << 30))
def test_it_equals_the_formula(heads, spans, seed):
    torch.manual_seed(seed)
    batch = batch_of(spans, Random(seed))
    cache = cache_with_empty_block(heads[1])
    query = torch.randn(len(batch.tokens), heads[0], 8)
    attended = GroupedAttention(batch, BLOCK_TOKENS).attend(query, cache, SCALING)
    torch.testing.assert_close(attended, expected_of(query, cache, batch))


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_change_no_bit_of_a_span(heads, dtype):
    torch.manual_seed(1)
    together = batch_of([*SPANS, *SPANS[::-1], *[(1, 60)] * 20], Random(1))
    cache = cache_with_empty_block(heads[1], dtype)
    query = torch.randn(len(together.tokens), heads[0], 8).to(dtype)
    attended = GroupedAttention(together, BLOCK_TOKENS).attend(query, cache, SCALING)
    for span in together.spans:
        rows = slice(span.first_row, span.first_row + span.rows)
        alone = Batch([0] * span.rows, [], [0] * span.rows, [Span(0, *_form(span))], [])
        one = GroupedAttention(alone, BLOCK_TOKENS).attend(query[rows], cache, SCALING)
        assert torch.equal(one, attended[rows])


def _form(span: Span):
    return span.rows, span.context_tokens, span.blocks


def test_what_is_not_a_number_elsewhere_is_never_read():
    torch.manual_seed(2)
    batch = batch_of(SPANS[:6], Random(2))
    clean = cache_with_empty_block(2)
    query = torch.randn(len(batch.tokens), 14, 8)
    for span in batch.spans:
        poisoned = LayerCache(clean.keys.clone(), clean.values.clone())
        others = torch.ones(len(clean.keys), dtype=torch.bool)
        others[own_slots(span)] = False
        others[-BLOCK_TOKENS:] = False  # the empty block
        poisoned.keys[others] = poisoned.values[others] = torch.nan
        attended = GroupedAttention(batch, BLOCK_TOKENS).attend(query, poisoned, SCALING)
        rows = slice(span.first_row, span.first_row + span.rows)
        assert torch.equal(
            attended[rows], GroupedAttention(batch, BLOCK_TOKENS).attend(query, clean, SCALING)[rows]
        )


def test_calls_that_gather_too_much_are_divided(monkeypatch):
    torch.manual_seed(3)
    batch = batch_of([(1, 60)] * 9, Random(3))
    cache = cache_with_empty_block(2)
    query = torch.randn(len(batch.tokens), 14, 8)
    whole = GroupedAttention(batch, BLOCK_TOKENS).attend(query, cache, SCALING)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(grouped_attention, "GATHERED_BYTES", 2 * 64 * cache.bytes_per_token)
    divided = GroupedAttention(batch, BLOCK_TOKENS)
    assert torch.equal(divided.attend(query, cache, SCALING), whole)
    (calls,) = divided._calls.values()
    assert [len(call.mask) for call in calls] == [2, 2, 2, 2, 1]


def test_layers_of_different_forms_share_a_step():
    torch.manual_seed(4)
    batch = batch_of([(1, 9), (3, 70)], Random(4))
    attention = GroupedAttention(batch, BLOCK_TOKENS)
    for heads, key_heads in HEADS:
        cache = cache_with_empty_block(key_heads)
        query = torch.randn(len(batch.tokens), heads, 8)
        torch.testing.assert_close(attention.attend(query, cache, SCALING), expected_of(query, cache, batch))


def test_spans_are_grouped_by_rows_and_width_and_long_ones_are_cut():
    spans = [Span(0, 1, 5, (1,)), Span(1, 1, 7, (2,)), Span(2, 1, 100, tuple(range(7))), Span(3, 4, 6, (3,))]
    assert {key: len(tiles) for key, tiles in group_tiles(spans).items()} == {
        (1, 64): 2,
        (1, 128): 1,
        (4, 64): 1,
    }
    long = group_tiles([Span(0, TILE_ROWS + 10, 1000, tuple(range(63)))])
    ((first,), (second,)) = long.values()
    assert (first.first_row, first.rows, first.context_tokens) == (0, TILE_ROWS, 990)
    assert (second.first_row, second.rows, second.context_tokens) == (TILE_ROWS, 10, 1000)


@pytest.mark.parametrize("context", [1, 2, 63, 64, 65, 512, 1000, 1025, 8191, 8193])
def test_a_width_holds_the_context_with_little_to_spare(context):
    width = width_for(context)
    assert context <= width <= max(context + 63, context * 9 / 8)
    assert width_for(width) == width
