"""Linear layers on the CPU whose weights are rounded to 4 bits and whose rows to 8.

Few rows are multiplied by torch's kernel for 4 bit weights, which reads them where they lie. Many rows
are worth expanding the weights into int8 first, block by block. Both add up the same whole numbers, which
stay so small that even float32 holds them exactly, so it makes no difference to a row which one it took.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import nn

from engine.executors.integer_products import greatest_weight, multiply, round_rows
from engine.executors.linear_8_bit import missing_in_multiples, pad_columns
from engine.executors.rounding import GROUP_COLUMNS, Rounded4, round_to_4_bits

#: Rows up to which torch's kernel is faster than expanding (measured on two cores with AVX512).
FEW_ROWS = 16

#: Outputs come in multiples of this, the most that torch lays side by side.
OUTPUT_MULTIPLE = 64

#: Columns of one piece of a weight. The sums over so many stay exact in float32 without coarser weights.
PIECE_COLUMNS = 4096

#: Weights that are packed, and later expanded, at a time: packing needs eight bytes beside each.
BLOCK_WEIGHTS = 1 << 20


class Linear4BitOnCpu(nn.Module):
    """Stands where an `nn.Linear` stood; a row's result is the same alone and among others."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        self._missing = missing_in_multiples(linear.in_features, GROUP_COLUMNS)
        self._pieces = [
            _Piece(columns) for columns in torch.split(linear.weight.detach(), PIECE_COLUMNS, dim=1)
        ]

    @property
    def weight_bytes(self) -> int:
        """The memory behind the weight."""
        return sum(piece.weight_bytes for piece in self._pieces)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, in_features] → […, out_features], of the same type."""
        whole, row_scales = round_rows(rows.reshape(-1, self.in_features))
        columns = torch.split(pad_columns(whole, self._missing), PIECE_COLUMNS, dim=1)
        result = self._pieces[0].apply(columns[0])
        for piece, more in zip(self._pieces[1:], columns[1:], strict=True):
            result += piece.apply(more)
        result = result[:, : self.out_features].mul_(row_scales)
        if self.bias is not None:
            result += self.bias
        return result.to(rows.dtype).view(*rows.shape[:-1], self.out_features)


class _Piece:
    """Some columns of a weight, as torch's kernel wants them: a byte holds two channels' codes."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._blocks: list[torch.Tensor] = []
        self._steps_and_zeros: list[torch.Tensor] = []
        scales = []
        missing = missing_in_multiples(weight.shape[1], GROUP_COLUMNS)
        for channels in torch.split(weight, _block_channels(weight.shape[1])):
            padding = (0, missing, 0, missing_in_multiples(channels.shape[0], OUTPUT_MULTIPLE))
            rounded = round_to_4_bits(nn.functional.pad(channels, padding), greatest_weight())
            self._blocks.append(torch._convert_weight_to_int4pack_for_cpu(rounded.codes.int(), 1))
            self._steps_and_zeros.append(_steps_and_zeros(rounded))
            scales.append(rounded.scales)
        self._scales = torch.cat(scales)

    @property
    def weight_bytes(self) -> int:
        tensors = (self._scales, *self._blocks, *self._steps_and_zeros)
        return sum(tensor.nbytes for tensor in tensors)

    def apply(self, rows: torch.Tensor) -> torch.Tensor:
        """Whole rows, float32 [rows, columns] → float32 [rows, channels]."""
        sums = torch.cat(list(self._sums(rows)), dim=1)
        return sums.float().mul_(self._scales)

    def _sums(self, rows: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield each block's sums in bfloat16: torch's kernel gives no more, so both forms round to it."""
        layout = nibble_layout()
        if rows.shape[0] <= FEW_ROWS or layout is None:
            narrow = rows.bfloat16()
            for block, steps_and_zeros in zip(self._blocks, self._steps_and_zeros, strict=True):
                yield torch._weight_int4pack_mm_for_cpu(narrow, block, GROUP_COLUMNS, steps_and_zeros)
        else:
            whole = rows.to(torch.int8)
            for block, steps_and_zeros in zip(self._blocks, self._steps_and_zeros, strict=True):
                yield multiply(whole, expanded(block, steps_and_zeros, layout)).bfloat16()


def bytes_of_4_bits_on_cpu(in_features: int, out_features: int) -> int:
    """Return what a layer's weight takes, without its bias."""
    columns = in_features + missing_in_multiples(in_features, GROUP_COLUMNS)
    channels = out_features + missing_in_multiples(out_features, OUTPUT_MULTIPLE)
    pieces = -(-in_features // PIECE_COLUMNS)
    return channels * (columns // 2 + 4 * (columns // GROUP_COLUMNS) + 4 * pieces)


def expanded(block: torch.Tensor, steps_and_zeros: torch.Tensor, layout: int) -> torch.Tensor:
    """Return the whole numbers behind a packed block, int8 [columns, channels].

    `layout` channels lie in the lower halves of as many bytes, and the next `layout` in the upper halves.
    """
    channels, columns = block.shape[0], 2 * block.shape[1]
    tiles = channels // (2 * layout)
    halves = torch.empty(columns, tiles, 2, layout, dtype=torch.uint8)
    packed = block.view(tiles, columns, layout).view(torch.int64).transpose(0, 1)
    wide = halves.view(torch.int64)
    torch.bitwise_right_shift(packed, 4, out=wide[:, :, 1])
    wide[:, :, 0] = packed
    codes = halves.bitwise_and_(15).view(columns // GROUP_COLUMNS, GROUP_COLUMNS, channels)
    # Wrapping round in 8 bits does no harm: step · (code - 8) + zero is back between -127 and 127.
    steps, zeros = steps_and_zeros.to(torch.int8).unbind(-1)
    zeros = zeros - 8 * steps
    codes.mul_(steps.view(torch.uint8)[:, None]).add_(zeros.view(torch.uint8)[:, None])
    return codes.view(torch.int8).view(columns, channels)


@cache
def nibble_layout() -> int | None:
    """Return how this processor's kernel wants channels beside each other; None if in no known way."""
    codes = torch.randint(
        0, 16, (2 * OUTPUT_MULTIPLE, GROUP_COLUMNS), generator=torch.Generator().manual_seed(1)
    )
    block = torch._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
    plain = torch.tensor([1.0, 8.0], dtype=torch.bfloat16).expand(1, codes.shape[0], 2)
    for layout in (32, 16):
        if torch.equal(expanded(block, plain, layout).t().long(), codes):
            return layout
    return None


def _steps_and_zeros(rounded: Rounded4) -> torch.Tensor:
    """[groups, channels, 2]; whole numbers so small that bfloat16 holds them exactly."""
    return torch.stack([rounded.steps.t(), rounded.zeros.t()], dim=-1).bfloat16()


def _block_channels(columns: int) -> int:
    return max(1, BLOCK_WEIGHTS // columns // OUTPUT_MULTIPLE) * OUTPUT_MULTIPLE
