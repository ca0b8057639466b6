"""Attention over pages equals attention over gathered blocks, for every kind of step."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.batch import Batch, Span
from engine.executors.grouped_attention import GroupedAttention
from engine.executors.layer_cache import LayerCache
from engine.executors.paged_attention import PAGE_TOKENS, PagedAttention, _has_form, can_page, varlen_attn
from engine.executors.step_inputs import (
    StepInputs,
    StepShape,
    blocks_seen,
    pad_rows,
    readers_of_rows,
    readers_of_spans,
)
from tests.engine.paged import NEEDS_GPU, ReferenceKernel, causal, random_batch, random_cache
from tests.properties import examples

HEADS = [(4, 4), (4, 2), (8, 1)]
SCALING = 0.3


def filled(batch, readers, block_tokens) -> StepInputs:
    shape = StepShape(
        len(batch.tokens), len(readers), blocks_seen(readers, block_tokens), len(batch.logit_rows)
    )
    inputs = StepInputs.on_host(shape, pinned=False)
    inputs.fill(batch, readers)
    return inputs


def paged(batch, readers, block_tokens, kernel) -> PagedAttention:
    most_rows = max(reader.rows for reader in readers)
    most_context = max(reader.context_tokens for reader in readers)
    return PagedAttention(filled(batch, readers, block_tokens), block_tokens, most_rows, most_context, kernel)


@examples(60)
@given(st.integers(0, 1 << 32), st.sampled_from(HEADS), st.sampled_from([1, 2, 5, 16]))
def test_pages_give_what_gathered_blocks_give(seed, heads, most_rows):
    torch.manual_seed(seed)
    block_tokens = 4
    batch = random_batch(Random(seed), block_tokens, blocks=6, most_rows=most_rows)
    cache = random_cache(7 * block_tokens, heads[1], 8)
    query = torch.randn(len(batch.tokens), heads[0], 8)
    expected = GroupedAttention(batch, block_tokens).attend(query, cache, SCALING)
    kernel = ReferenceKernel(page_multiple=block_tokens)
    for readers in (readers_of_spans(batch.spans), readers_of_rows(batch.spans)):
        attention = paged(batch, readers, block_tokens, kernel)
        assert attention.slots_on(query.device).tolist() == batch.slots
        torch.testing.assert_close(attention.attend(query, cache, SCALING), expected)
    rows = len(batch.tokens) + 3
    padded, readers = pad_rows(batch, readers_of_rows(batch.spans), rows, 6, block_tokens)
    attention = paged(padded, readers, block_tokens, kernel)
    query = torch.cat([query, torch.randn(3, *query.shape[1:])])
    output = attention.attend(query, cache, SCALING)
    torch.testing.assert_close(output[: len(batch.tokens)], expected)
    assert output.isfinite().all()


def test_a_step_is_laid_out_in_one_buffer():
    spans = [Span(0, 2, 5, (3, 1, 9)), Span(2, 1, 3, (7,))]
    batch = Batch([11, 12, 13], [3, 4, 2], [15, 4, 30], spans, [1, 2])
    inputs = filled(batch, readers_of_spans(spans), 4)
    assert inputs.tokens.tolist() == [11, 12, 13]
    assert inputs.positions.tolist() == [3, 4, 2]
    assert inputs.slots.tolist() == [15, 4, 30]
    assert inputs.logit_rows.tolist() == [1, 2]
    assert inputs.contexts.tolist() == [5, 3]
    assert inputs.row_starts.tolist() == [0, 2, 3]
    assert inputs.context_starts.tolist() == [0, 5, 8]
    assert inputs.table.tolist() == [[3, 1], [7, 0]]
    copy = inputs.to(torch.device("cpu"))
    copy.buffer.copy_(inputs.buffer)
    assert copy.table.tolist() == inputs.table.tolist()


def test_rows_that_attend_alone_see_what_they_saw_together():
    readers = readers_of_rows([Span(0, 3, 7, (5, 6)), Span(3, 1, 1, (2,))])
    assert [(reader.rows, reader.context_tokens) for reader in readers] == [(1, 5), (1, 6), (1, 7), (1, 1)]
    assert [reader.blocks for reader in readers] == [(5, 6)] * 3 + [(2,)]


def test_padding_writes_to_the_spare_block_and_reads_only_it():
    batch = Batch([1], [0], [0], [Span(0, 1, 1, (0,))], [0])
    padded, readers = pad_rows(batch, readers_of_rows(batch.spans), 3, 6, 4)
    assert padded.slots == [0, 24, 24]
    assert [reader.blocks for reader in readers] == [(0,), (6,), (6,)]
    assert [reader.context_tokens for reader in readers] == [1, 1, 1]
    assert (len(padded.tokens), len(padded.positions), len(padded.logit_rows)) == (3, 3, 3)


@pytest.mark.parametrize(
    ("key_size", "value_size", "dtype", "is_known"),
    [
        (128, 128, torch.bfloat16, True),
        (256, 256, torch.float16, True),
        (128, 128, torch.float32, False),
        (264, 264, torch.bfloat16, False),
        (20, 20, torch.bfloat16, False),
        (192, 128, torch.bfloat16, False),
    ],
)
def test_what_the_kernel_does_not_know_is_left_to_gathering(key_size, value_size, dtype, is_known):
    keys, values = torch.empty(1, 2, key_size, dtype=dtype), torch.empty(1, 2, value_size, dtype=dtype)
    assert _has_form(keys, values) == is_known
    assert not can_page(LayerCache(keys, values))  # there is no such kernel for the CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NEEDS_GPU)
@pytest.mark.parametrize("heads", [(32, 2), (32, 8), (8, 8), (28, 4)])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("most_rows", [1, 2, 7, 300])
def test_torchs_kernel_gives_what_the_formula_gives(heads, size, most_rows):
    """Contexts of up to 40 pages make the kernel divide them; blocks are shared among the texts."""
    torch.manual_seed(0)
    random = Random(most_rows)
    options = {"dtype": torch.bfloat16, "device": "cuda"}
    cache = random_cache(41 * PAGE_TOKENS, heads[1], size, **options)
    assert can_page(cache)
    pages = (
        cache.keys.view(-1, PAGE_TOKENS, heads[1], size),
        cache.values.view(-1, PAGE_TOKENS, heads[1], size),
    )
    for _ in range(5):
        batch = random_batch(random, PAGE_TOKENS, blocks=40, most_rows=most_rows)
        query = torch.randn(len(batch.tokens), heads[0], size, **options)
        for readers in (readers_of_spans(batch.spans), readers_of_rows(batch.spans)):
            inputs = filled(batch, readers, PAGE_TOKENS).to(torch.device("cuda"))
            most = (max(reader.rows for reader in readers), max(reader.context_tokens for reader in readers))
            attention = PagedAttention(inputs, PAGE_TOKENS, *most, varlen_attn)
            output = attention.attend(query, cache, size**-0.5)
            for span in batch.spans:
                rows = slice(span.first_row, span.first_row + span.rows)
                keys, values = (
                    part[list(span.blocks)].flatten(0, 1)[: span.context_tokens] for part in pages
                )
                expected = causal(query[rows], keys, values, size**-0.5)
                torch.testing.assert_close(output[rows], expected, rtol=2e-2, atol=1e-2)
