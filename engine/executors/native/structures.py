"""What crosses the border to C++, field for field as `sources/api.h` has it."""

import ctypes
from ctypes import c_char, c_float, c_int64, c_void_p
from typing import Any

import numpy as np
import torch

#: What has numbers in memory.
Numbers = torch.Tensor | np.ndarray[Any, Any]


class Buffer(ctypes.Structure):
    """An address and the bytes behind it; whoever makes one keeps its numbers alive."""

    _fields_ = (("data", c_void_p), ("bytes", c_int64))

    @classmethod
    def of(cls, numbers: Numbers | None) -> "Buffer":
        """Raises ValueError if the numbers do not lie one behind the other in this process's memory."""
        if numbers is None:
            return cls(None, 0)
        if isinstance(numbers, torch.Tensor):
            if not numbers.is_contiguous() or numbers.device.type != "cpu":
                raise ValueError("a tensor for the native step must be contiguous and on the CPU")
            return cls(numbers.data_ptr() or None, numbers.nbytes)
        if not numbers.flags.c_contiguous:
            raise ValueError("an array for the native step must be contiguous")
        return cls(numbers.ctypes.data, numbers.nbytes)


class LinearWeights(ctypes.Structure):
    _fields_ = (
        *((name, Buffer) for name in ("weights", "scales", "first_sums", "bias")),
        *((name, c_int64) for name in ("inputs", "outputs")),
    )


class LayerWeights(ctypes.Structure):
    _fields_ = (
        *(
            (name, Buffer)
            for name in (
                *("input_norm", "query_norm", "key_norm"),
                *("attended_norm", "mlp_input_norm", "mlp_output_norm"),
            )
        ),
        *((name, LinearWeights) for name in ("query_key_value", "attended", "gate_up", "down")),
    )


class Shape(ctypes.Structure):
    _fields_ = (
        *(
            (name, c_int64)
            for name in (
                *("bits", "layers", "hidden", "intermediate", "heads", "key_heads", "head_size"),
                *("rotary_size", "vocabulary", "cache_blocks", "threads"),
            )
        ),
        *((name, c_float) for name in ("epsilon", "attention_scale")),
    )


class ModelWeights(ctypes.Structure):
    _fields_ = (
        ("shape", Shape),
        ("layers", ctypes.POINTER(LayerWeights)),
        ("layer_count", c_int64),
        ("embedding", Buffer),
        ("final_norm", Buffer),
        ("head", LinearWeights),
        ("keys", Buffer),
        ("values", Buffer),
    )


class StepRows(ctypes.Structure):
    _fields_ = tuple(
        (name, Buffer)
        for name in (
            *("tokens", "positions", "slots", "cosines", "sines"),
            *("spans", "blocks", "wanted", "logits"),
        )
    )


class PackOrder(ctypes.Structure):
    _fields_ = (
        ("sources", Buffer * 3),
        ("order", Buffer),
        *((name, c_int64) for name in ("inputs", "source_bits", "bits")),
        *((name, Buffer) for name in ("packed", "scales", "first_sums")),
    )


class Message(ctypes.Structure):
    """Why a call was refused, in UTF-8 up to the first zero."""

    _fields_ = (("text", c_char * 256),)
