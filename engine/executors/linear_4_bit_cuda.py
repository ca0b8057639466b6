"""Linear layers on CUDA whose weights are rounded to 4 bits, by torch's kernel for them ("tinygemm")."""

import torch
from torch import nn
from torch.nn.functional import pad

from engine.executors.linear_8_bit import missing_in_multiples, pad_columns

#: Columns of a weight that share a step and a zero: 4.25 bits a weight in all.
CUDA_GROUP_COLUMNS = 128

#: Tiles of 16 columns that a thread block takes together; the most that the kernel knows.
INNER_TILES = 8

#: Outputs come in multiples of this.
CUDA_OUTPUT_MULTIPLE = 8

#: Weights that are rounded at a time, so that little beside them is needed.
BLOCK_WEIGHTS = 1 << 24


class Linear4BitOnCuda(nn.Module):
    """Stands where an `nn.Linear` stood; rows are computed in bfloat16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        self._missing = missing_in_multiples(linear.in_features, CUDA_GROUP_COLUMNS)
        padding = (0, self._missing, 0, missing_in_multiples(linear.out_features, CUDA_OUTPUT_MULTIPLE))
        bytes_, self._steps_and_zeros = round_in_groups(pad(linear.weight.detach(), padding))
        self._weight = torch._convert_weight_to_int4pack(bytes_, INNER_TILES)

    @property
    def weight_bytes(self) -> int:
        """The memory behind the weight."""
        return self._weight.nbytes + self._steps_and_zeros.nbytes

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, in_features] → […, out_features], of the same type."""
        flat = pad_columns(rows.reshape(-1, self.in_features).bfloat16(), self._missing)
        result = torch._weight_int4pack_mm(flat, self._weight, CUDA_GROUP_COLUMNS, self._steps_and_zeros)
        result = result[:, : self.out_features]
        if self.bias is not None:
            result = result + self.bias
        return result.to(rows.dtype).view(*rows.shape[:-1], self.out_features)


def bytes_of_4_bits_on_cuda(in_features: int, out_features: int) -> int:
    """Return what a layer's weight takes, without its bias."""
    columns = in_features + missing_in_multiples(in_features, CUDA_GROUP_COLUMNS)
    channels = out_features + missing_in_multiples(out_features, CUDA_OUTPUT_MULTIPLE)
    return channels * (columns // 2 + 4 * (columns // CUDA_GROUP_COLUMNS))


def round_in_groups(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round [out, in] to 16 values for each group of columns: step · (code - 8) + zero.

    Returns the codes of two neighbouring columns in a byte, the first in the upper half, uint8
    [out, in ÷ 2], and steps and zeros, bfloat16 [groups, out, 2].
    """
    blocks = torch.split(weight, max(1, BLOCK_WEIGHTS // weight.shape[1]))
    codes, steps_and_zeros = zip(*(_round_block(block.float()) for block in blocks), strict=True)
    return torch.cat(codes), torch.cat(steps_and_zeros, dim=1).contiguous()


def _round_block(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    groups = weight.view(weight.shape[0], -1, CUDA_GROUP_COLUMNS)
    most, least = groups.amax(-1), groups.amin(-1)
    # What the kernel computes with is rounded first, so that the codes fit what it will read.
    steps = ((most - least) / 15).clamp_min_(1e-30).bfloat16().float()
    zeros = (least + 8 * steps).bfloat16().float()
    codes = ((groups - zeros[..., None]) / steps[..., None]).round_().clamp_(-8, 7).add_(8).flatten(1)
    codes = codes.to(torch.uint8)
    steps_and_zeros = torch.stack([steps.t(), zeros.t()], dim=-1).bfloat16()
    return codes[:, 0::2] << 4 | codes[:, 1::2], steps_and_zeros
