"""Exact products of rows and weights, both whole numbers: a row never depends on its neighbours."""

from functools import cache

import torch
from torch.nn.functional import pad

from engine.executors.rounding import GREATEST_ACTIVATION

#: Rows all of whose numbers are smaller than this times GREATEST_ACTIVATION are taken as zeros.
LEAST_SCALE = 1e-30

#: cuBLAS multiplies int8 from 17 rows on, and where rows and columns come in eights.
CUDA_LEAST_ROWS, CUDA_MULTIPLE = 32, 8


def round_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, columns] → whole numbers from -127 to 127 in float32, and each row's own scale [rows, 1].

    row ≈ whole · scale. A row with a NaN has the scale NaN.
    """
    rows = rows.float()
    scales = rows.abs().amax(-1, keepdim=True).div_(GREATEST_ACTIVATION).clamp_min_(LEAST_SCALE)
    return torch.div(rows, scales).round_(), scales


def multiply(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """int8 [rows, in] · int8 [in, out] → int32 [rows, out].

    Exact where no number of `columns` is beyond ± `greatest_weight()`; on CUDA, `in` and `out` are
    multiples of CUDA_MULTIPLE.
    """
    count = rows.shape[0]
    if not count:
        return columns.new_empty(0, columns.shape[1], dtype=torch.int32)
    if rows.is_cuda and count < CUDA_LEAST_ROWS:
        return torch._int_mm(pad(rows, (0, 0, 0, CUDA_LEAST_ROWS - count)), columns)[:count]
    return torch._int_mm(rows, columns)


@cache
def greatest_weight() -> int:
    """Return the greatest whole number that a weight may be: 127, or 64 where this processor needs it so.

    Processors without the VNNI instructions add two products in 16 bits, which hold no sum of two
    products of 255 and 127. (oneDNN's documentation, "Nuances of int8 Computations".)
    """
    for greatest in (127, 64):
        if all(_is_exact(greatest, count) for count in (1, 2, 33)):
            return greatest
    raise RuntimeError("this processor's products of 8 bit integers are not exact: tier large needs none")


def _is_exact(greatest: int, count: int) -> bool:
    """Try the largest products, in layers wide enough for every form of the product to come into play."""
    weight = torch.full((64, 256), greatest, dtype=torch.int8)
    weight[1::2] = -greatest
    rows = torch.full((count, 256), GREATEST_ACTIVATION, dtype=torch.int8)
    rows[1::2] = -GREATEST_ACTIVATION
    expected = rows.long() @ weight.long().t()
    return torch.equal(multiply(rows, weight.t()).long(), expected)
