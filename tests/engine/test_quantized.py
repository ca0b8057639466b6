"""Weights of 8 and 4 bits: how near they stay, and that nobody's neighbours matter."""

import pytest
import torch
from torch import nn

from engine.executors.quantized import (
    Int4Linear,
    Int8Linear,
    compressed_bytes,
    compressed_linear,
    fits_4_bit,
)


def linear_of(in_features, out_features, *, bias=True, dtype=torch.bfloat16):
    torch.manual_seed(in_features + out_features)
    return nn.Linear(in_features, out_features, bias=bias, dtype=dtype)


SIZES = [(64, 32), (896, 128), (4864, 896), (96, 16)]


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("bits", "nearness"), [(8, 0.02), (4, 0.15)])
@pytest.mark.parametrize("size", SIZES)
def test_results_are_near_those_of_the_whole_weights(size, bits, nearness, bias):
    linear = linear_of(*size, bias=bias)
    rows = torch.randn(3, 5, size[0], dtype=torch.bfloat16)
    expected = linear.float()(rows.float())
    result = compressed_linear(linear.bfloat16(), bits)(rows)
    assert (result.shape, result.dtype) == (expected.shape, torch.bfloat16)
    error = (result.float() - expected).norm() / expected.norm()
    assert error < nearness


@torch.inference_mode()
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", SIZES)
def test_a_row_is_the_same_alone_and_in_a_batch(size, bits):
    layer = compressed_linear(linear_of(*size), bits)
    rows = torch.randn(32, size[0], dtype=torch.bfloat16)
    together = layer(rows)
    for place in (0, 1, 13, 31):
        assert torch.equal(layer(rows[place : place + 1])[0], together[place])
    assert torch.equal(layer(rows[5:12]), together[5:12])


@torch.inference_mode()
@pytest.mark.parametrize("bits", [8, 4])
def test_no_rows_and_rows_of_32_bit_are_computed_too(bits):
    layer = compressed_linear(linear_of(64, 32, dtype=torch.float32), bits)
    assert layer(torch.zeros(0, 64, dtype=torch.bfloat16)).shape == (0, 32)
    assert layer(torch.ones(2, 64)).dtype == torch.float32


@torch.inference_mode()
def test_weights_that_are_all_zero_stay_zero():
    linear = linear_of(64, 32, bias=False)
    linear.weight.zero_()
    for bits in (8, 4):
        assert not compressed_linear(linear, bits)(torch.ones(1, 64, dtype=torch.bfloat16)).any()


@pytest.mark.parametrize(
    ("size", "kind"), [((64, 32), Int4Linear), ((70, 32), Int8Linear), ((64, 10), Int8Linear)]
)
def test_sizes_that_4_bits_do_not_fit_get_8(size, kind):
    linear = linear_of(*size)
    assert fits_4_bit(linear) == (kind is Int4Linear)
    assert type(compressed_linear(linear, 4)) is kind
    with pytest.raises(ValueError, match="not 3"):
        compressed_linear(linear, 3)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [*SIZES, (70, 10)])
def test_the_bytes_are_those_that_the_layer_takes(size, bits):
    linear = linear_of(*size)
    layer = compressed_linear(linear, bits)
    assert compressed_bytes(linear, bits) == sum(part.nbytes for part in layer.buffers())


@torch.inference_mode()
def test_both_ways_to_compute_4_bits_agree():
    """What other devices do is the same as the CPU's kernel, up to rounding."""
    linear = linear_of(128, 32)
    packed = compressed_linear(linear, 4)
    spread = as_on_other_devices(linear)
    rows = torch.randn(4, 128, dtype=torch.bfloat16)
    torch.testing.assert_close(spread(rows), packed(rows), rtol=0.05, atol=0.02)


def as_on_other_devices(linear):
    layer, made = Int4Linear.__new__(Int4Linear), Int4Linear(linear)
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features, layer.bias = 128, 32, linear.bias
    layer.is_packed = False
    weight = linear.weight.detach().float().view(32, -1, 32)
    least = weight.amin(-1, keepdim=True)
    scales = ((weight.amax(-1, keepdim=True) - least) / 15).clamp(min=1e-8)
    numbers = ((weight - least) / scales).round().clamp(0, 15).view(32, 128).to(torch.int32)
    layer.register_buffer("numbers", layer._stored(numbers))
    layer.register_buffer("scales", made.scales)
    return layer
