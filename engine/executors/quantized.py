"""Linear layers whose weights have 8 or 4 bits; activations keep theirs.

A row's result is the same alone and in any batch, so nobody's neighbours change an answer. On CPUs the
products are torch's own weight-only kernels; elsewhere the weight is spread out again for each call.
"""

import torch
from torch import nn
from torch.nn.functional import linear as multiply

#: Weights that share a scale and a zero point in 4 bit; torch's kernel takes 32, 64, 128 and 256.
GROUP = 32

#: Output features must come in such bundles for torch's 4 bit kernel on CPUs.
BUNDLE_4_BIT = 16

#: The greatest numbers of 8 bit (with sign) and 4 bit (without).
MOST_8_BIT = 127
MOST_4_BIT = 15

#: What torch's 4 bit kernel takes away from every number before it is scaled.
MIDDLE_4_BIT = 8

#: Numbers smaller than this have no scale of their own: a group of zeros must not divide by zero.
LEAST_SCALE = 1e-8


class Int8Linear(nn.Module):
    """A weight of 8 bits with one scale per output feature."""

    numbers: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = (weight.abs().amax(1) / MOST_8_BIT).clamp(min=LEAST_SCALE)
        numbers = (weight / scales[:, None]).round().clamp(-MOST_8_BIT, MOST_8_BIT)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self.register_buffer("numbers", numbers.to(torch.int8))
        self.register_buffer("scales", scales.bfloat16())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, in_features] → […, out_features], of the type of the rows."""
        flat = rows.reshape(-1, self.in_features).bfloat16()
        if rows.device.type == "cpu":
            result = torch._weight_int8pack_mm(flat, self.numbers, self.scales)
        else:
            result = multiply(flat, self.numbers.bfloat16()) * self.scales
        return _finish(result, rows, self.bias)


class Int4Linear(nn.Module):
    """A weight of 4 bits with a scale and a zero point for every GROUP input features.

    Raises ValueError for sizes that do not come in whole groups and bundles; see `fits_4_bit`.
    """

    numbers: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if not fits_4_bit(linear):
            raise ValueError(f"{linear} cannot be kept in groups of {GROUP} weights")
        weight = linear.weight.detach().float()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        grouped = weight.view(self.out_features, -1, GROUP)
        least = grouped.amin(-1)
        scales = ((grouped.amax(-1) - least) / MOST_4_BIT).clamp(min=LEAST_SCALE)
        numbers = ((grouped - least[..., None]) / scales[..., None]).round().clamp(0, MOST_4_BIT)
        zeros = least + MIDDLE_4_BIT * scales
        self.is_packed = weight.device.type == "cpu"
        self.register_buffer("numbers", self._stored(numbers.view_as(weight).to(torch.int32)))
        self.register_buffer(
            "scales", torch.stack([scales, zeros], -1).transpose(0, 1).contiguous().bfloat16()
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, in_features] → […, out_features], of the type of the rows."""
        flat = rows.reshape(-1, self.in_features).bfloat16()
        if self.is_packed:
            result = torch._weight_int4pack_mm_for_cpu(flat, self.numbers, GROUP, self.scales)
        else:
            result = multiply(flat, self._spread())
        return _finish(result, rows, self.bias)

    def _stored(self, numbers: torch.Tensor) -> torch.Tensor:
        if self.is_packed:
            return torch._convert_weight_to_int4pack_for_cpu(numbers, 1)
        return (numbers[:, ::2] | numbers[:, 1::2] << 4).to(torch.uint8)

    def _spread(self) -> torch.Tensor:
        """Return the weight in 16 bit."""
        pairs = torch.stack([self.numbers & MOST_4_BIT, self.numbers >> 4], -1)
        grouped = pairs.view(self.out_features, -1, GROUP).bfloat16() - MIDDLE_4_BIT
        scales, zeros = self.scales.transpose(0, 1).unbind(-1)
        return (grouped * scales[..., None] + zeros[..., None]).view(self.out_features, self.in_features)


def fits_4_bit(linear: nn.Linear) -> bool:
    """Whether the layer's sizes come in whole groups and bundles."""
    return linear.in_features % GROUP == 0 and linear.out_features % BUNDLE_4_BIT == 0


def compressed_linear(linear: nn.Linear, bits: int) -> nn.Module:
    """Return the layer that takes its place, with a weight of its own.

    Where 4 bits do not fit the layer's sizes it gets 8. Raises ValueError for other numbers of bits.
    """
    if bits == 4 and fits_4_bit(linear):
        return Int4Linear(linear)
    if bits in (4, 8):
        return Int8Linear(linear)
    raise ValueError(f"weights have 8 or 4 bits, not {bits}")


def compressed_bytes(linear: nn.Linear, bits: int) -> int:
    """Return what that layer's weight takes in memory, scales included; the linear may be without memory."""
    weights = linear.in_features * linear.out_features
    if bits == 4 and fits_4_bit(linear):
        return weights // 2 + weights // GROUP * 4
    return weights + 2 * linear.out_features


def _finish(result: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if bias is not None:
        result = result + bias
    return result.view(*rows.shape[:-1], result.shape[-1]).to(rows.dtype)
