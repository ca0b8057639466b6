"""Which layer takes the place of a linear layer so that its weight has 16, 8 or 4 bits."""

from torch import nn

from engine.executors.linear_4_bit_cpu import Linear4BitOnCpu, bytes_of_4_bits_on_cpu
from engine.executors.linear_4_bit_cuda import Linear4BitOnCuda, bytes_of_4_bits_on_cuda
from engine.executors.linear_8_bit import Linear8Bit, bytes_of_8_bits
from engine.executors.prepacked import PrepackedLinear


def compressed_linear(linear: nn.Linear, bits: int) -> nn.Module:
    """Return the layer that takes its place, with a weight of its own on the same device.

    It shares the bias, and keeps nothing else of the linear layer.
    """
    is_cuda = linear.weight.is_cuda
    match bits:
        case 16:
            return linear if is_cuda else PrepackedLinear(linear)
        case 8:
            return Linear8Bit(linear)
        case 4:
            return Linear4BitOnCuda(linear) if is_cuda else Linear4BitOnCpu(linear)
    raise ValueError(f"bits: must be 16, 8 or 4, not {bits}")


def compressed_bytes(in_features: int, out_features: int, bits: int, *, is_cuda: bool) -> int:
    """Return the memory of the weight of such a layer, without its bias."""
    match bits:
        case 16:
            return 2 * in_features * out_features
        case 8:
            return bytes_of_8_bits(in_features, out_features, is_cuda=is_cuda)
        case 4 if is_cuda:
            return bytes_of_4_bits_on_cuda(in_features, out_features)
        case 4:
            return bytes_of_4_bits_on_cpu(in_features, out_features)
    raise ValueError(f"bits: must be 16, 8 or 4, not {bits}")
