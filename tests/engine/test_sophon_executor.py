"""Bmodels of every layout compute what transformers computes, whatever is computed beside and before."""

import gc

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.batch import Batch, Span
from engine.executors.sophon.executor import DoesNotFitChip, SophonExecutor
from engine.executors.sophon.layout import UnknownLayout
from tests.tiny_checkpoints import write_checkpoint
from tests.workers import sail_stand_in
from tests.workers.bmodels import KINDS, stand_in, write_bmodel

#: Logits of the tiny model spread over some 2.8. Passing between nets in 16 bits moves single ones by up
#: to this much in float16, and bfloat16 has an eighth of its precision.
FLOAT16_ERROR = 0.3

TEXTS = [[(7 * place + 31 * number) % 256 for place in range(60)] for number in range(3)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def expected(checkpoint):
    """Logits of transformers behind every token of the texts."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint).float().eval()
    with torch.inference_mode():
        return model(torch.tensor(TEXTS)).logits


@pytest.fixture
def chips():
    with stand_in() as chips:
        yield chips


@pytest.fixture
def open_bmodel(checkpoint, tmp_path, chips):
    opened = []

    def open_(kind="static", *, most_lanes=3, memory_bytes=None, ids=None, **description):
        path = write_bmodel(tmp_path / "tiny.bmodel", checkpoint, kind, **description)
        executor = SophonExecutor(
            sail_stand_in,
            path,
            ids or list(range(KINDS[kind].get("chips", 1))),
            most_lanes=most_lanes,
            vocabulary_size=267,
            memory_bytes=memory_bytes,
        )
        opened.append(executor)
        return executor

    yield open_
    for executor in opened:
        executor.close()
    opened.clear()
    gc.collect()


def batch_of(executor, *parts):
    """A batch of rows of texts, each part (lane, text, start, end); logits are wanted for all."""
    batch = Batch([], [], [], [], [])
    for lane, text, start, end in parts:
        batch.spans.append(Span(len(batch.tokens), end - start, end, ()))
        batch.tokens.extend(text[start:end])
        batch.positions.extend(range(start, end))
        batch.slots.extend(range(lane * executor.lane_slots + start, lane * executor.lane_slots + end))
    batch.logit_rows.extend(range(len(batch.tokens)))
    return batch


def compute(executor, lane, text, *ends):
    """Compute a text in pieces that end so; return all logits."""
    pieces = zip((0, *ends), ends, strict=False)
    return torch.cat([executor.run(batch_of(executor, (lane, text, start, end))) for start, end in pieces])


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(open_bmodel, expected, kind):
    executor = open_bmodel(kind, number="f16")
    logits = compute(executor, 0, TEXTS[0], 40, 41, 42, 50)
    assert (logits - expected[0][:50]).abs().max() < FLOAT16_ERROR


@pytest.mark.parametrize("kind", ["static", "history", "shifted"])
def test_bfloat16_is_no_worse_than_its_precision(open_bmodel, expected, kind):
    logits = compute(open_bmodel(kind, number="bf16"), 0, TEXTS[0], 40, 50)
    assert (logits - expected[0][:50]).abs().mean() < FLOAT16_ERROR


@pytest.mark.parametrize("kind", KINDS)
def test_interleaved_sequences_are_what_each_is_alone(open_bmodel, kind):
    executor = open_bmodel(kind)
    alone = [compute(executor, 0, text, 20, 21, 22, 30) for text in TEXTS[:2]]
    together = [[], []]
    for start, end in ((0, 20), (20, 21), (21, 22), (22, 30)):
        for lane in (1, 2):
            part = batch_of(executor, (lane, TEXTS[lane - 1], start, end))
            together[lane - 1].append(executor.run(part))
    assert torch.equal(torch.cat(together[0]), alone[0])
    assert torch.equal(torch.cat(together[1]), alone[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_prefix_is_as_good_as_a_computed_one(open_bmodel, kind):
    executor = open_bmodel(kind)
    compute(executor, 0, TEXTS[0], 40)
    other = [*TEXTS[0][:32], *TEXTS[1][32:]]
    alone = compute(executor, 1, other, 32, 40)[32:]
    compute(executor, 0, TEXTS[0], 40)
    executor.copy(0, 2, 32)
    copied = executor.run(batch_of(executor, (2, other, 32, 40)))
    assert torch.equal(copied, alone)
    assert torch.isfinite(executor.run(batch_of(executor, (0, TEXTS[0], 40, 41)))).all()


@pytest.mark.parametrize("kind", ["static", "heads", "shifted", "columns"])
def test_a_lane_that_is_cut_short_goes_on_from_there(open_bmodel, kind):
    executor = open_bmodel(kind)
    other = [*TEXTS[0][:32], *TEXTS[1][32:]]
    alone = compute(executor, 1, other, 32, 40)[32:]
    compute(executor, 0, TEXTS[0], 40, 45)
    executor.copy(0, 0, 32)
    assert torch.equal(executor.run(batch_of(executor, (0, other, 32, 40))), alone)


def test_more_cannot_be_copied_than_was_computed(open_bmodel):
    executor = open_bmodel()
    compute(executor, 0, TEXTS[0], 10)
    with pytest.raises(ValueError, match="holds 10 tokens, not 16"):
        executor.copy(0, 1, 16)


def test_chunks_give_what_single_tokens_give(open_bmodel):
    executor = open_bmodel("stages", number="f16")
    chunks = compute(executor, 0, TEXTS[0], 37, 60)
    single = compute(executor, 1, TEXTS[0], *range(1, 61))
    assert (chunks - single).abs().max() < FLOAT16_ERROR


def test_the_shortest_cache_that_holds_the_context_is_read(open_bmodel, chips):
    executor = open_bmodel("stages")
    sizes = []
    process = executor._chips.engine.process

    def spy(graph, inputs, outputs):
        if graph == "block_cache_0":
            sizes.append(inputs[3].shape()[1])
        process(graph, inputs, outputs)

    executor._chips.engine.process = spy
    compute(executor, 0, TEXTS[0], 16, 17, 32, 33, 34)
    assert sizes == [16, 32, 64]


def test_a_cache_can_be_filled_to_its_last_row_and_no_further(open_bmodel):
    executor = open_bmodel(context=48, width=48)
    logits = compute(executor, 0, TEXTS[0], 47, 48)
    assert torch.isfinite(logits).all()
    with pytest.raises(ValueError, match="49 tokens do not fit 48 rows"):
        executor.run(batch_of(executor, (0, TEXTS[0], 48, 49)))


def test_a_head_without_logits_leaves_no_choice(open_bmodel, expected):
    executor = open_bmodel(number="f16", logits=False)
    scores = compute(executor, 0, TEXTS[0], 20)
    assert scores.shape == (20, 267)
    assert torch.isfinite(scores).sum() == 20
    assert (scores.argmax(-1) == expected[0][:20].argmax(-1)).float().mean() > 0.9


def test_a_launch_that_fails_leaves_a_shifted_lane_as_it_was(open_bmodel, chips):
    executor = open_bmodel("shifted")
    want = compute(executor, 1, TEXTS[0], 20, 21)[20:]
    compute(executor, 0, TEXTS[0], 20)
    launch = executor._chips.engine.process

    def fail_at_second_layer(graph, inputs, outputs):
        if graph == "block_cache_1":
            raise RuntimeError("broken")
        launch(graph, inputs, outputs)

    executor._chips.engine.process = fail_at_second_layer
    with pytest.raises(RuntimeError):
        executor.run(batch_of(executor, (0, TEXTS[0], 20, 21)))
    executor._chips.engine.process = launch
    assert torch.equal(executor.run(batch_of(executor, (0, TEXTS[0], 20, 21))), want)


def test_lanes_take_memory_when_they_are_used_and_give_it_back(open_bmodel, chips):
    executor = open_bmodel(most_lanes=8)
    idle = chips[0].used_bytes
    for lane in range(4):
        compute(executor, lane, TEXTS[0], 5)
    assert chips[0].used_bytes == idle + 4 * executor._lanes.lane_bytes
    for lane in range(4):
        executor.free(lane)
    assert chips[0].used_bytes == idle


def test_there_are_as_many_lanes_as_fit_the_chip(open_bmodel, chips):
    size = open_bmodel(most_lanes=1)._lanes.lane_bytes
    chips[0].room_bytes = 0
    with pytest.raises(RuntimeError):
        open_bmodel()
    gc.collect()
    base = chips[0].used_bytes
    chips[0].room_bytes = base + (base + 2 * size + size // 2)
    assert open_bmodel(most_lanes=8).lanes == 2
    chips[0].room_bytes = None


def test_memory_that_is_allowed_bounds_the_lanes(open_bmodel, chips):
    first = open_bmodel(most_lanes=8)
    size = first._lanes.lane_bytes
    bmodel_bytes = 1024  # more than the stand-in's file has
    assert open_bmodel(most_lanes=8, memory_bytes=3 * size + bmodel_bytes).lanes == 3
    with pytest.raises(DoesNotFitChip, match=rf"{size} bytes on each chip"):
        open_bmodel(most_lanes=8, memory_bytes=size // 2)


def test_a_bmodel_for_two_chips_needs_two(open_bmodel):
    with pytest.raises(RuntimeError):
        open_bmodel("two_chips", ids=[0])
    with pytest.raises((RuntimeError, UnknownLayout)):
        open_bmodel("static", ids=[0, 1])


def test_both_chips_that_share_work_hold_their_part(open_bmodel, chips):
    executor = open_bmodel("two_chips", ids=[1, 3])
    compute(executor, 0, TEXTS[0], 20, 21)
    assert chips[1].launches == chips[3].launches
    assert "block_kv_1" in chips[1].launches
    assert chips[0].most_used_bytes == 0
