"""Linear layers of bfloat16 weights on the CPU, laid out once as oneDNN wants them.

torch lays a bfloat16 weight out anew at every call; for one row that costs three times the product
itself. The operators are those that torch's own compiler (Inductor) emits for frozen weights.
"""

import torch
from torch import nn


class PrepackedLinear(nn.Module):
    """A drop-in for `nn.Linear`; holds the only copy of its weight, in oneDNN's own layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, in_features] → […, out_features], both bfloat16."""
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self.bias, "none", [], ""
        )
        return result


def prepack(model: nn.Module) -> None:
    """Replace the linear layers one by one, so that no more than one weight is there twice."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Linear and child.weight.dtype == torch.bfloat16:
                setattr(module, name, PrepackedLinear(child))


def can_prepack() -> bool:
    """Whether this processor multiplies bfloat16 itself and torch has oneDNN's operators."""
    return bool(
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.cpu._is_avx512_bf16_supported()
    )
