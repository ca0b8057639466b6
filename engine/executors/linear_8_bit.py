"""Linear layers whose weights and rows are rounded to 8 bits, on the CPU and on CUDA."""

import torch
from torch import nn
from torch.nn.functional import pad

from engine.executors.integer_products import CUDA_MULTIPLE, greatest_weight, multiply, round_rows
from engine.executors.rounding import round_to_8_bits


class Linear8Bit(nn.Module):
    """Stands where an `nn.Linear` stood; each output channel has a scale, and each row.

    A row's result is the same alone and among others: the sums are whole numbers.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        is_cuda = linear.weight.is_cuda
        rounded = round_to_8_bits(linear.weight, 127 if is_cuda else greatest_weight())
        self._missing = missing_in_multiples(linear.in_features) if is_cuda else 0
        self._weight = rounded.values
        if is_cuda:
            self._weight = pad(self._weight, (0, self._missing, 0, missing_in_multiples(self.out_features)))
        self._scales = rounded.scales

    @property
    def weight_bytes(self) -> int:
        """The memory behind the weight."""
        return self._weight.nbytes + self._scales.nbytes

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, in_features] → […, out_features], of the same type."""
        whole, row_scales = round_rows(rows.reshape(-1, self.in_features))
        sums = multiply(pad_columns(whole.to(torch.int8), self._missing), self._weight.t())
        result = sums[:, : self.out_features].mul(self._scales).mul_(row_scales)
        if self.bias is not None:
            result += self.bias
        return result.to(rows.dtype).view(*rows.shape[:-1], self.out_features)


def bytes_of_8_bits(in_features: int, out_features: int, *, is_cuda: bool) -> int:
    """Return what a layer's weight takes, without its bias."""
    if not is_cuda:
        return in_features * out_features + 4 * out_features
    columns = in_features + missing_in_multiples(in_features)
    return columns * (out_features + missing_in_multiples(out_features)) + 4 * out_features


def missing_in_multiples(features: int, multiple: int = CUDA_MULTIPLE) -> int:
    """Return how many features are missing in a whole number of multiples."""
    return -features % multiple


def pad_columns(rows: torch.Tensor, missing: int) -> torch.Tensor:
    """Put columns of zeros behind the others."""
    return pad(rows, (0, missing)) if missing else rows
