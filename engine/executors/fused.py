"""Fewer and larger kernels on a GPU: norms in one kernel each, and decoder layers compiled, if that works."""

import logging
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import rms_norm
from transformers import AttentionInterface, PreTrainedModel

from engine.executors.torch_executor import ATTENTION

logger = logging.getLogger(__name__)

#: What transformers' classes of this norm are called after the architecture's name.
NORM_SUFFIX = "RMSNorm"

#: How far torch's norm may be from the model's own, which rounds to 16 bit once more on its way.
NORM_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


class FusedNorm(nn.Module):
    """A drop-in for a root mean square norm, computed in one kernel; shares the weight."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden, self.weight.shape, self.weight, self.epsilon)


@torch.inference_mode()
def fuse_norms(model: nn.Module) -> int:
    """Replace the norms for which torch's own gives the same; return how many those are."""
    found = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if (fused := _fused(child)) is not None:
                setattr(module, name, fused)
                found += 1
    return found


def _fused(norm: nn.Module) -> FusedNorm | None:
    """Return the replacement; None for other modules, and norms that do something more or else."""
    weight, epsilon = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not type(norm).__name__.endswith(NORM_SUFFIX) or not isinstance(epsilon, float):
        return None
    if not isinstance(weight, nn.Parameter) or weight.dtype not in NORM_TOLERANCE:
        return None
    fused = FusedNorm(weight, epsilon)
    numbers = torch.linspace(-3, 5, 2 * len(weight), dtype=weight.dtype, device=weight.device)
    rows = numbers.view(2, -1)
    tolerance = NORM_TOLERANCE[weight.dtype]
    return fused if torch.allclose(fused(rows), norm(rows), rtol=tolerance, atol=tolerance) else None


def compile_layers(model: PreTrainedModel, trial: Callable[[], object], backend: str = "inductor") -> bool:
    """Compile what is between two attentions; attention itself is left as it is.

    The layers share what is compiled, once for one row and once for any other number. If `trial`, a
    step, fails then (there may be no C compiler), nothing is compiled and the answer is False.
    """
    attend = AttentionInterface()[ATTENTION]  # type: ignore[no-untyped-call]
    AttentionInterface.register(ATTENTION, torch.compiler.disable(attend))  # type: ignore[no-untyped-call]
    layers = [module for module in model.modules() if isinstance(module, _layer_classes(model))]
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)
    try:
        trial()
    except Exception:  # a compiler may raise anything
        logger.exception("The layers cannot be compiled; they run as they are")
        AttentionInterface.register(ATTENTION, attend)
        for layer in layers:
            layer._compiled_call_impl = None  # what `Module.compile` sets; it has no other way back
        return False
    return True


def _layer_classes(model: PreTrainedModel) -> tuple[type[nn.Module], ...]:
    """The classes that transformers says must not be torn apart: the decoder layers."""
    names = set(model._no_split_modules or ())
    return tuple({type(module) for module in model.modules() if type(module).__name__ in names})
