"""Weights of linear layers, rounded to integers of 8 or 4 bits."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

#: Columns of a weight that share a step and a zero in 4 bits: 4.5 bits a weight in all.
GROUP_COLUMNS = 64

#: Weights that are rounded at a time: what that needs beside them stays in the processor's cache.
_BLOCK_WEIGHTS = 1 << 19

#: Whole numbers below this are exact in float32, whatever the order in which they were summed.
EXACT_IN_FLOAT32 = 1 << 24

#: The greatest whole number that stands for an activation.
GREATEST_ACTIVATION = 127

#: A step is (range ÷ 15 + this), rounded down: what is cut off at the ends of some groups costs less than
#: coarser steps would. Of 0.3 to 0.8, this loses least for weights like normal and like Student's t (5).
_STEP_ROUNDING = 0.35

#: Factor by which a channel grows coarser while its sums could be too large to be exact.
_COARSER = 1.125


class Rounded8(NamedTuple):
    """weight ≈ values · scales; values int8 [out, in], scales float32 [out]."""

    values: torch.Tensor
    scales: torch.Tensor


class Rounded4(NamedTuple):
    """weight ≈ (steps · (codes - 8) + zeros) · scales, all but the scales whole numbers.

    codes 0 to 15, uint8 [out, in]; steps, zeros float32 [out, in ÷ GROUP_COLUMNS]; scales float32 [out].
    """

    codes: torch.Tensor
    steps: torch.Tensor
    zeros: torch.Tensor
    scales: torch.Tensor


def round_to_8_bits(weight: torch.Tensor, greatest: int) -> Rounded8:
    """Round each output channel [out, in] to whole numbers from -greatest to greatest."""
    blocks = [_channels_of_8_bits(block, greatest) for block in _row_blocks(weight)]
    return Rounded8(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))


def round_to_4_bits(weight: torch.Tensor, greatest: int) -> Rounded4:
    """Round [out, in], in a multiple of GROUP_COLUMNS, to 16 whole numbers for each group of columns.

    They lie between -greatest and greatest, so that a layer can be computed in integers like one of
    8 bits; and a channel's products with whole activations always sum to less than EXACT_IN_FLOAT32.
    """
    blocks = [_channels_of_4_bits(block, greatest) for block in _row_blocks(weight)]
    return Rounded4(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))


def expanded(rounded: Rounded4) -> torch.Tensor:
    """Return the whole numbers that stand for the weights, float32 [out, in]."""
    grouped = _in_groups(rounded.codes).float()
    return ((grouped - 8) * rounded.steps[..., None] + rounded.zeros[..., None]).flatten(1)


def _channels_of_8_bits(weight: torch.Tensor, greatest: int) -> Rounded8:
    scales = _nonzero(weight.abs().amax(1) / greatest)
    return Rounded8((weight / scales[:, None]).round_().to(torch.int8), scales)


def _channels_of_4_bits(weight: torch.Tensor, greatest: int) -> Rounded4:
    # Rounding moves a value by half a step at most, and a step is at most an eighth of `greatest`.
    scales = _nonzero(weight.abs().amax(1) / (greatest * 15 / 16))
    while True:
        rounded = _round_groups(weight / scales[:, None], scales)
        sums = expanded(rounded).abs().sum(1) * GREATEST_ACTIVATION
        too_large = sums >= EXACT_IN_FLOAT32
        if not too_large.any():
            return rounded
        scales = torch.where(too_large, scales * _COARSER, scales)


def _round_groups(values: torch.Tensor, scales: torch.Tensor) -> Rounded4:
    """Give each group 16 values around its middle, eight of them below its zero."""
    groups = _in_groups(values)
    most, least = groups.amax(-1, keepdim=True), groups.amin(-1, keepdim=True)
    steps = ((most - least) / 15 + _STEP_ROUNDING).floor_().clamp_min_(1)
    zeros = ((most + least + steps) / 2).round_()
    codes = ((groups - zeros) / steps).round_().clamp_(-8, 7).add_(8)
    return Rounded4(codes.flatten(1).to(torch.uint8), steps.squeeze(-1), zeros.squeeze(-1), scales)


def _row_blocks(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    for block in torch.split(weight.detach(), max(1, _BLOCK_WEIGHTS // weight.shape[1])):
        yield block.float()


def _in_groups(values: torch.Tensor) -> torch.Tensor:
    return values.view(values.shape[0], -1, GROUP_COLUMNS)


def _nonzero(scales: torch.Tensor) -> torch.Tensor:
    """A channel of nothing but zeros has any scale."""
    return torch.where(scales > 0, scales, 1)
