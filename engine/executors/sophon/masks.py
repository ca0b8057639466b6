"""Attention masks as a net wants them: what is added to the scores, as numbers of its own kind. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.executors.sophon.graphs import Number

#: Added where a token must not look: about -10,000, as bits for the kinds that numpy or sail cannot tell
#: apart. The two are not alike, and a net does not notice the wrong one.
MASKED: dict[str, Any] = {
    "bfloat16": np.uint16(0xC61C),
    "float16": np.uint16(0xF0E2),
    "float32": np.float32(-10000.0),
}

Mask = NDArray[Any]


def causal_mask(tokens: int, columns: int, number: Number | None) -> Mask:
    """Return [columns, 1, tokens, tokens]: each token sees itself and those before it."""
    masked = _masked(number)
    rows = np.triu(np.full((tokens, tokens), masked), k=1)
    return np.ascontiguousarray(np.broadcast_to(rows, (columns, 1, tokens, tokens)))


def decode_mask(
    known: int, length: int, columns: int, number: Number | None, *, ends_at_last_row: bool
) -> Mask:
    """Return [columns, 1, 1, length + 1]: a token sees the `known` rows of a cache of so many, and itself.

    They are the first rows, or the last ones.
    """
    row = np.full(length + 1, _masked(number))
    row[length] = 0
    if ends_at_last_row:
        row[length - known :] = 0
    else:
        row[:known] = 0
    return np.ascontiguousarray(np.broadcast_to(row, (columns, 1, 1, length + 1)))


def _masked(number: Number | None) -> Any:
    if number not in MASKED:
        raise ValueError(f"a mask of {number} is not known here")
    return MASKED[number]
