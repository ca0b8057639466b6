"""Rows of the native step: each comes out the same to the bit, whatever is computed beside it."""

import itertools
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from engine.batch import Batch, Span
from engine.executors.native.executor import NativeExecutor
from engine.executors.native.library import NativeError
from engine.executors.native.processor import Instructions
from engine.executors.native.structures import Buffer, StepRows
from tests.engine.native import (
    BITS,
    BLOCK_TOKENS,
    EVERY_SET,
    chunk,
    executor_for,
    logits_in_chunks,
    packed,
    small_model,
    tokens_of,
)
from tests.engine.paged import Steps
from tests.engine.parts import ARCHITECTURES, VOCABULARY_SIZE


@BITS
@EVERY_SET
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chunks_of_any_size_give_the_same_to_the_bit(architecture, bits, instructions):
    model = packed(small_model(architecture), bits, instructions)
    tokens = tokens_of(530)
    whole = logits_in_chunks(NativeExecutor(model, 1 << 26, 530), tokens, [530])
    for ends in ([1, 2, 5, 13, 128, 256, 257, 530], [255, 511, 512, 530], [*range(7, 530, 43), 530]):
        assert torch.equal(logits_in_chunks(NativeExecutor(model, 1 << 26, 530), tokens, ends), whole)


@BITS
@EVERY_SET
def test_neighbours_make_no_difference(bits, instructions):
    """Random steps of many sequences, in scattered blocks: prompts, single tokens and guesses mixed."""
    model = packed(small_model("Qwen3", num_attention_heads=14), bits, instructions)
    together = NativeExecutor(model, 1 << 26, 2048)
    steps = Steps(Random(3), BLOCK_TOKENS).add((1, 40, 150, 17, 300, 64, 5), VOCABULARY_SIZE)
    alone = {
        text.blocks: logits_in_chunks(NativeExecutor(model, 1 << 26, 512), text.tokens, [len(text.tokens)])
        for text in steps.texts
    }
    compared = 0
    for batch in steps:
        logits = together.run(batch)
        for row, one in zip(batch.logit_rows, logits, strict=True):
            span = next(one for one in reversed(batch.spans) if one.first_row <= row)
            assert torch.equal(one, alone[span.blocks][batch.positions[row]])
            compared += 1
    assert compared > 30


@BITS
def test_the_number_of_threads_makes_no_difference(bits):
    model = packed(small_model("Glm4"), bits)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            executor = NativeExecutor(model, 1 << 26, 512)
        finally:
            torch.set_num_threads(1)
        found.append(logits_in_chunks(executor, tokens_of(200), [150, 151, 200]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_both_sets_of_instructions_give_nearly_the_same():
    first, second = (
        logits_in_chunks(executor_for(small_model(), 8, one), tokens_of(90), [90]) for one in Instructions
    )
    torch.testing.assert_close(first, second, rtol=0.02, atol=0.02)


@BITS
@EVERY_SET
def test_what_lies_in_a_block_behind_the_context_is_never_read(bits, instructions):
    """Another sequence may have left there what is not a number."""
    model = packed(small_model(), bits, instructions)
    clean, poisoned = (NativeExecutor(model, 1 << 26, 512) for _ in range(2))
    poisoned._keys[:] = poisoned._values[:] = 0x7FC0  # bfloat16 for "not a number"
    ends = [11, 18, 19, 40]
    logits = logits_in_chunks(poisoned, tokens_of(40), ends)
    assert torch.equal(logits, logits_in_chunks(clean, tokens_of(40), ends))
    assert logits.isfinite().all()


@BITS
def test_a_sequence_that_went_wrong_does_not_touch_its_neighbours(bits):
    """Its own logits say so, too: nothing turns what is not a number into one."""
    model = small_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = torch.nan
    executor = executor_for(model, bits)
    blocks = ((0,), (1,))
    spans = [Span(0, 2, 2, blocks[0]), Span(2, 2, 2, blocks[1])]
    sick = executor.run(Batch([5, 7, 9, 3], [0, 1, 0, 1], [0, 1, 16, 17], spans, [0, 1, 2, 3]))
    well = executor.run(Batch([9, 3], [0, 1], [32, 33], [Span(0, 2, 2, (2,))], [0, 1]))
    assert sick[:2].isnan().all()
    assert torch.equal(sick[2:], well)


def test_logits_come_for_the_rows_that_are_asked_for():
    executor = executor_for(small_model())
    batch = chunk(tokens_of(9), 0, 9)
    every = executor.run(batch)
    assert torch.equal(executor.run(replace(batch, logit_rows=[8, 2])), every[[8, 2]])
    several = [3, 8, 3, *range(9), 0, 0]  # more than there are
    assert torch.equal(executor.run(replace(batch, logit_rows=several)), every[several])
    assert executor.run(replace(batch, logit_rows=[])).shape == (0, VOCABULARY_SIZE)


def test_a_prefix_that_two_share_is_read_by_both():
    executor = executor_for(small_model())
    tokens = tokens_of(40)
    every = logits_in_chunks(executor, tokens, [32, 40])
    other = Batch(tokens[32:40], list(range(32, 40)), list(range(80, 88)), [Span(0, 8, 40, (0, 1, 5))], [7])
    assert torch.equal(executor.run(other)[0], every[39])


def test_the_cache_takes_no_more_than_it_may_and_no_more_than_it_needs():
    model = packed(small_model())
    per_block = 16 * 2 * 2 * 2 * 16 * 2  # tokens, keys and values, layers, key heads, head size, bytes
    executor = NativeExecutor(model, 10 * per_block + 5, 10_000)
    assert (executor.bytes_per_token * 16, executor.cache_blocks) == (per_block, 10)
    assert executor._keys.nbytes + executor._values.nbytes == 10 * per_block
    assert NativeExecutor(model, 1 << 40, 33).cache_blocks == 3
    with pytest.raises(ValueError, match="no cache block"):
        NativeExecutor(model, per_block - 1, 100)


GOOD = Batch([1, 2, 3], [4, 5, 0], [20, 21, 32], [Span(0, 2, 6, (1,)), Span(2, 1, 1, (2,))], [1, 2])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tokens": [1, 2, VOCABULARY_SIZE]}, "tokens: 272 is not"),
        ({"tokens": [1, -2, 3]}, "tokens: -2 is not"),
        ({"tokens": [1, 2]}, "positions"),
        ({"tokens": [], "positions": [], "slots": [], "spans": [], "logit_rows": []}, "at least one"),
        ({"positions": [4, 6, 0]}, "row 1 is not where"),
        ({"slots": [20, 21, 48]}, "row 2 is not where"),
        ({"slots": [20, 1 << 30, 32]}, "row 1 is not where"),
        ({"logit_rows": [3]}, "wanted: 3 is not"),
        ({"logit_rows": [-1]}, "wanted: -1 is not"),
        ({"spans": [GOOD.spans[0]]}, "cover every row"),
        ({"spans": [GOOD.spans[1], GOOD.spans[0]]}, "follow each other"),
        ({"spans": [Span(0, 3, 6, (1,))]}, "row 0 is not where"),
        ({"spans": [Span(0, 2, 6, (1,)), Span(2, 1 << 20, 1 << 20, (2,))]}, "fewer than|follow each other"),
        ({"spans": [Span(0, 2, 6, (1,)), Span(2, 1, 0, (2,))]}, "follow each other"),
        ({"spans": [Span(0, 2, 6, ()), Span(2, 1, 1, (2,))]}, "row 0 is not where"),
        ({"spans": [Span(0, 2, 6, (1,)), Span(2, 1, 1, ())]}, "fewer than"),
        ({"spans": [Span(0, 2, 6, (99,)), Span(2, 1, 1, (2,))]}, "blocks: 99 is not"),
        ({"spans": [Span(0, 2, 6, (-1,)), Span(2, 1, 1, (2,))]}, "blocks: -1 is not"),
    ],
)
def test_a_batch_that_contradicts_itself_is_refused_and_nothing_is_written(change, complaint):
    executor = executor_for(small_model(), most_tokens=64)
    assert executor.run(GOOD).isfinite().all()
    before = executor._keys.copy()
    with pytest.raises(NativeError, match=complaint):
        executor.run(replace(GOOD, **change))
    assert np.array_equal(executor._keys, before)


def test_numbers_that_no_32_bits_hold_are_refused():
    with pytest.raises(OverflowError):
        executor_for(small_model()).run(replace(GOOD, slots=[20, 1 << 40, 32]))


def test_buffers_of_the_wrong_size_are_refused():
    executor = executor_for(small_model(), most_tokens=64)
    none = [Buffer.of(None)] * 8
    for tokens, logits in itertools.product((np.zeros(1, np.int32), np.zeros(3, np.int8)), (0, 5)):
        wrong = StepRows(Buffer.of(tokens), *none[:7], Buffer.of(np.zeros(logits, np.float32)))
        with pytest.raises(NativeError, match=r"must have|at least one"):
            executor._open.step(wrong)


def test_a_closed_model_computes_nothing():
    executor = executor_for(small_model())
    executor._open.close()
    executor._open.close()
    with pytest.raises(NativeError, match="closed"):
        executor.run(GOOD)
