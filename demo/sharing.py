"""Training in several processes, one thread each: small products gain more from that than from threads."""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed
from torch.nn import Parameter


def join(rank: int, processes: int, meeting_place: str) -> None:
    """Meet the other processes over a file that does not exist yet."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_place}", rank=rank, world_size=processes
    )


def share_gradients(parameters: Iterable[Parameter], seconds: float) -> float:
    """Replace each gradient by the mean over the processes; return the first one's seconds to all."""
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if not distributed.is_initialized():
        return seconds
    gradients = [_gradient(parameter) for parameter in parameters]
    own = torch.tensor([seconds if distributed.get_rank() == 0 else 0.0])
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), own])
    distributed.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(
            flat[start : start + gradient.numel()].view_as(gradient) / distributed.get_world_size()
        )
        start += gradient.numel()
    return float(flat[-1])


def _gradient(parameter: Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
