"""Layouts of bmodels are recognised by their shapes, and others refused with what was found."""

import json

import numpy as np
import pytest

from engine.executors.sophon.graphs import read_graphs
from engine.executors.sophon.layout import Layout, UnknownLayout, find_layout
from engine.executors.sophon.masks import causal_mask, decode_mask
from tests.tiny_checkpoints import write_checkpoint
from tests.workers import sail_stand_in
from tests.workers.bmodels import KINDS, stand_in, write_bmodel


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def graphs_of(checkpoint, tmp_path):
    """The nets of a bmodel that is described."""
    with stand_in():

        def read(kind="static", **description):
            path = write_bmodel(tmp_path / "tiny.bmodel", checkpoint, kind, **description)
            chips = json.loads(path.read_text()).get("chips", 1)
            return read_graphs(sail_stand_in, sail_stand_in.EngineLLM(str(path), list(range(chips))))

        yield read


@pytest.mark.parametrize(
    ("kind", "form"),
    [(kind, description.get("form", "rows")) for kind, description in KINDS.items()],
)
def test_every_layout_is_recognised(graphs_of, kind, form):
    layout = find_layout(graphs_of(kind))
    assert layout.form == {"older": "shifted", "columns": "shifted"}.get(form, form)
    assert (layout.layers, layout.hidden, layout.context_tokens, layout.head_size) == (2, 32, 128, 8)
    assert layout.columns == (4 if kind == "columns" else 1)
    assert layout.chips == (2 if kind == "two_chips" else 1)
    assert layout.heads == (1 if kind == "two_chips" else 2)
    assert layout.takes_history == (kind in ("history", "stages", "two_chips"))
    assert layout.prefill_tokens == {"narrow": 48}.get(kind, 16 if layout.takes_history else 128)
    assert layout.is_dynamic == bool(KINDS[kind].get("dynamic"))
    assert layout.decode_lengths == ((16, 32, 64, 128) if kind == "stages" else (128,))


def test_a_head_gives_logits_or_ids(graphs_of):
    assert find_layout(graphs_of()).logits == 267
    assert find_layout(graphs_of(logits=False)).logits is None


def test_a_missing_net_is_named(graphs_of):
    with pytest.raises(UnknownLayout, match=r"no net embedding, lm_head, only block_0, .*embedding_cache"):
        find_layout(graphs_of(missing=["embedding", "lm_head"]))


def test_a_missing_layer_is_named(graphs_of):
    with pytest.raises(UnknownLayout, match=r"layers differ: .*no block_cache_1"):
        find_layout(graphs_of(missing=["block_cache_1"]))


@pytest.mark.parametrize(
    ("name", "side", "index", "shape"),
    [
        ("block_cache_0", "inputs", 3, (1, 128, 16)),
        ("block_cache_0", "outputs", 1, (1, 2, 2, 8)),
        ("block_0", "inputs", 1, (3, 128)),
        ("block_0", "outputs", 1, (1, 64, 2, 8)),
        ("block_0", "inputs", 0, (1, 128)),
        ("block_1", "outputs", 1, (1, 64, 2, 8)),
    ],
)
def test_what_fits_no_layout_is_refused_with_what_was_found(graphs_of, name, side, index, shape):
    graphs = graphs_of()
    graph = graphs[name]
    ports = list(getattr(graph, side))
    ports[index] = type(ports[index])(ports[index].name, shape, ports[index].number)
    changed = {field: getattr(graph, field) for field in graph.__slots__}
    graphs[name] = type(graph)(**{**changed, side: tuple(ports)})
    with pytest.raises(UnknownLayout) as refused:
        find_layout(graphs)
    assert str(list(shape)) in str(refused.value)


def test_rows_are_found_from_either_end():
    shape = dict.fromkeys(("layers", "chips", "columns", "hidden", "heads", "head_size"), 1)
    rest = {
        "context_tokens": 10,
        "prefill_tokens": 10,
        "decode_lengths": (10,),
        "is_dynamic": False,
        "has_prefill_mask": True,
        "takes_history": False,
        "logits": 5,
    }
    assert Layout(form="rows", **shape, **rest).first_row(3, 7) == 3
    assert Layout(form="shifted", **shape, **rest).first_row(3, 7) == 6
    by_head = Layout(form="heads", **{**shape, "heads": 2, "head_size": 4}, **rest)
    assert list(by_head.moves((10, 0), (10, 0), 3)) == [(0, 0, 12), (40, 40, 12)]
    assert list(by_head.moves((1, 0), (10, 5), 1)) == [(0, 20, 4), (4, 60, 4)]
    with pytest.raises(ValueError, match="do not fit"):
        list(by_head.moves((10, 0), (10, 8), 3))


@pytest.mark.parametrize(("number", "bits"), [("bfloat16", 0xC61C), ("float16", 0xF0E2)])
def test_masks_are_bits_of_the_nets_own_numbers(number, bits):
    mask = causal_mask(3, 2, number)
    assert (mask.shape, mask.dtype) == ((2, 1, 3, 3), np.uint16)
    assert mask[1, 0].tolist() == [[0, bits, bits], [0, 0, bits], [0, 0, 0]]
    first = decode_mask(2, 4, 1, number, ends_at_last_row=False)
    last = decode_mask(1, 4, 1, number, ends_at_last_row=True)
    assert first.tolist() == [[[[0, 0, bits, bits, 0]]]]
    assert last.tolist() == [[[[bits, bits, bits, 0, 0]]]]
    assert decode_mask(0, 2, 1, number, ends_at_last_row=True).tolist() == [[[[bits, bits, 0]]]]


def test_a_mask_of_another_kind_of_number_is_refused():
    with pytest.raises(ValueError, match="int32"):
        causal_mask(3, 1, "int32")
