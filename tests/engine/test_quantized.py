"""Linear layers of 8 and 4 bit weights: how near they come, in every shape, and for every row alone."""

import gc
import os
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

from engine.executors import linear_4_bit_cpu
from engine.executors.integer_products import greatest_weight, multiply
from engine.executors.linear_4_bit_cpu import FEW_ROWS, PIECE_COLUMNS, Linear4BitOnCpu, nibble_layout
from engine.executors.prepacked import PrepackedLinear, can_prepack
from engine.executors.quantized import compressed_bytes, compressed_linear

#: Root mean square errors of results, relative to the results, for weights and rows like normal.
BOUNDS = {8: 0.02 if greatest_weight() == 127 else 0.03, 4: 0.12}

#: One row, some, one more than what torch's kernel for few rows takes, many.
ROWS = (1, 3, FEW_ROWS, FEW_ROWS + 1, 70)

#: Shapes that neither groups, tiles nor vectors divide, and shapes that they do; one wider than a piece.
SHAPES = ((896, 1152), (896, 128), (64, 64), (100, 77), (37, 130), (8, 16), (1, 1), (PIECE_COLUMNS + 70, 70))


def linear(in_features, out_features, dtype=torch.bfloat16, bias=True):
    torch.manual_seed(in_features * out_features)
    layer = nn.Linear(in_features, out_features, bias=bias).to(dtype)
    nn.init.normal_(layer.weight, std=0.02)
    return layer.requires_grad_(False)


def relative_error(result, expected):
    return ((result.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compressed_layer_comes_near_what_the_layer_computes(shape, bits, bias, dtype):
    layer = linear(*shape, dtype=dtype, bias=bias)
    compressed = compressed_linear(layer, bits)
    for count in ROWS:
        rows = torch.randn(count, shape[0]).to(dtype)
        result = compressed(rows)
        assert (result.shape, result.dtype) == ((count, shape[1]), dtype)
        assert relative_error(result, layer.float()(rows.float())) < BOUNDS[bits]
        layer.to(dtype)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_gives_the_same_alone_and_among_others(shape, bits):
    layer = compressed_linear(linear(*shape), bits)
    rows = torch.randn(70, shape[0]).bfloat16() * torch.logspace(-3, 3, 70)[:, None].bfloat16()
    together = layer(rows)
    for count in (1, 2, 8, FEW_ROWS, FEW_ROWS + 1, 32):
        parts = torch.cat([layer(part) for part in torch.split(rows, count)])
        assert torch.equal(parts, together)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_makes_no_difference(threads):
    layers = [compressed_linear(linear(896, 640), bits) for bits in (8, 4)]
    rows = torch.randn(40, 896).bfloat16()
    before = torch.get_num_threads()
    expected = [layer(rows) for layer in layers]
    torch.set_num_threads(threads)
    try:
        assert all(torch.equal(layer(rows), one) for layer, one in zip(layers, expected, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(nibble_layout() is None, reason="the layout of torch's kernel is not known here")
def test_few_rows_and_many_rows_give_the_same_even_at_the_limit_of_what_is_exact(monkeypatch):
    heavy = linear(PIECE_COLUMNS, 64)
    heavy.weight.fill_(1.0).index_fill_(0, torch.arange(0, 64, 2), -1.0)
    heavy.weight[:, ::7] *= 0.37
    layer = Linear4BitOnCpu(heavy)
    rows = torch.rand(40, PIECE_COLUMNS).sub_(0.1).bfloat16()
    many = layer(rows)
    monkeypatch.setattr(linear_4_bit_cpu, "FEW_ROWS", 1000)
    assert torch.equal(layer(rows), many)


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_make_no_difference(bits, monkeypatch):
    layer = linear(192, 320)
    rows = torch.randn(40, 192).bfloat16()
    whole = compressed_linear(layer, bits)
    monkeypatch.setattr(linear_4_bit_cpu, "BLOCK_WEIGHTS", 192 * 128)
    monkeypatch.setattr("engine.executors.rounding._BLOCK_WEIGHTS", 192 * 3)
    split = compressed_linear(layer, bits)
    assert torch.equal(split(rows), whole(rows))
    assert torch.equal(split(rows[:2]), whole(rows[:2]))


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_may_lie_in_any_dimensions_and_there_may_be_none(bits):
    layer = compressed_linear(linear(96, 80), bits)
    rows = torch.randn(2, 3, 96).bfloat16()
    assert torch.equal(layer(rows), layer(rows.view(6, 96)).view(2, 3, 80))
    assert torch.equal(layer(rows[0, 0]), layer(rows)[0, 0])
    assert torch.equal(layer(rows.transpose(0, 1)), layer(rows).transpose(0, 1))
    assert layer(rows[:0]).shape == (0, 3, 80)


@pytest.mark.parametrize("bits", [8, 4])
def test_zeros_give_the_bias_and_a_sick_row_stays_alone(bits):
    layer = compressed_linear(linear(96, 80, torch.float32), bits)
    rows = torch.randn(3, 96)
    rows[0], rows[1, 5] = 0, torch.nan
    result = layer(rows)
    assert torch.equal(result[0], layer.bias)
    assert result[1].isnan().all()
    assert torch.equal(result[2], layer(rows[2]))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_weight_of_zeros_gives_zeros(bits):
    layer = linear(96, 80, bias=False)
    layer.weight.zero_()
    assert not compressed_linear(layer, bits)(torch.randn(3, 96).bfloat16()).any()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_layer_takes_is_known_before_it_is_there(shape, bits):
    layer = compressed_linear(linear(*shape), bits)
    assert layer.weight_bytes == compressed_bytes(*shape, bits, is_cuda=False)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_old_weight_is_not_kept(bits):
    layer = linear(128, 64)
    weight = weakref.ref(layer.weight)
    compressed = compressed_linear(layer, bits)
    storages = {tensor.untyped_storage().data_ptr() for tensor in _tensors(compressed)}
    assert layer.weight.untyped_storage().data_ptr() not in storages
    del layer
    gc.collect()
    assert weight() is None
    assert compressed.bias is not None


def _tensors(layer):
    found = [value for value in vars(layer).values() if isinstance(value, torch.Tensor)]
    for piece in getattr(layer, "_pieces", ()):
        found += [piece._scales, *piece._blocks, *piece._steps_and_zeros]
    return found


@pytest.mark.skipif(not can_prepack(), reason="this processor does not multiply bfloat16 itself")
def test_16_bits_are_laid_out_anew():
    assert isinstance(compressed_linear(linear(64, 64), 16), PrepackedLinear)


def test_other_numbers_of_bits_are_refused():
    with pytest.raises(ValueError, match="bits: must be 16, 8 or 4, not 5"):
        compressed_linear(linear(8, 8), 5)
    with pytest.raises(ValueError, match="bits: must be 16, 8 or 4, not 5"):
        compressed_bytes(8, 8, 5, is_cuda=True)


@pytest.mark.parametrize("shape", [(1, 256, 64), (9, 896, 130), (33, 100, 77)])
def test_products_of_whole_numbers_are_exact(shape):
    count, in_features, out_features = shape
    greatest = greatest_weight()
    rows = torch.randint(-127, 128, (count, in_features), dtype=torch.int8)
    weight = torch.randint(-greatest, greatest + 1, (out_features, in_features), dtype=torch.int8)
    assert torch.equal(multiply(rows, weight.t()).long(), rows.long() @ weight.long().t())


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this is such a processor, or of another kind")
@pytest.mark.parametrize("capability", ["AVX512_CORE", "AVX2"])
def test_processors_whose_sums_of_products_overflow_get_smaller_weights(capability):
    """oneDNN and torch are told to do without the newer instructions, as on an older processor."""
    older = {"ONEDNN_MAX_CPU_ISA": capability, "ATEN_CPU_CAPABILITY": "avx2"}
    code = (
        "import sys, pytest; from engine.executors.integer_products import greatest_weight;"
        "print('greatest', greatest_weight());"
        "sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', 'tests/engine/test_quantized.py',"
        "'-k', 'alone_and_among or comes_near or exact']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | older, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "greatest 64" in done.stdout
