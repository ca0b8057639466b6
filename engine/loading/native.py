"""Whether a checkpoint runs on the native step here, and bringing its weights there."""

import logging
from dataclasses import replace
from typing import Literal

import torch
from transformers import PreTrainedModel

from engine.executors.native.architecture import reason_against
from engine.executors.native.build import CannotBuild
from engine.executors.native.footprint import packed_bytes
from engine.executors.native.huge_pages import HugePages
from engine.executors.native.library import load_library
from engine.executors.native.processor import LACKS_INSTRUCTIONS, best_instructions
from engine.executors.native.weights import PackedModel, pack_model
from engine.loading.heap import trim_heap
from engine.loading.mapped_files import MappedFiles
from engine.loading.plan import BITS, Footprint, Tier
from engine.loading.progress import Progress

logger = logging.getLogger(__name__)

#: Who computes: the native step where it can and torch elsewhere, or one of them by name.
ExecutorChoice = Literal["auto", "native", "torch"]

#: The tier that the native step does not know.
TORCH_TIER = "small"


class CannotRunNative(Exception):
    """The native step was asked for and cannot run this model here; the message says why."""


def chooses_native(
    choice: ExecutorChoice,
    skeleton: PreTrainedModel,
    dtype: torch.dtype,
    tier: Tier | Literal["auto"],
    *,
    is_cuda: bool,
) -> bool:
    """Decide, and log why not where it was left open. `dtype` is what the checkpoint is meant for.

    Raises CannotRunNative if it was asked for and cannot be.
    """
    if choice == "torch":
        return False
    if tier == TORCH_TIER:
        reason: str | None = f"tier {tier} is computed by torch"
    elif choice == "auto" and dtype == torch.float32 and not is_cuda:
        reason = "its weights are meant for 32 bits"  # rounding them is not ours to decide
    else:
        reason = _reason_against(skeleton, is_cuda=is_cuda)
    if reason is not None and choice == "native":
        raise CannotRunNative(f"--executor native: {reason}")
    if reason is not None and not is_cuda:
        logger.info("Computing with torch, not the native step: %s", reason)
    return reason is None


def as_packed(footprint: Footprint, skeleton: PreTrainedModel) -> Footprint:
    """Return the footprint with what packed weights take, in the tiers that the step knows."""
    packed = {tier: packed_bytes(skeleton, bits) for tier, bits in BITS.items() if tier != TORCH_TIER}
    return replace(footprint, weight_bytes={**footprint.weight_bytes, **packed})


def pack(
    model: PreTrainedModel, bits: int, mapped: MappedFiles, memory: HugePages | None = None
) -> PackedModel:
    """Pack a mapped model's weights layer by layer; what is packed leaves no page of its file behind."""
    progress = Progress(sum(weight.nbytes for weight in model.parameters()))

    def finish(stored: torch.Tensor) -> None:
        mapped.give_back(stored)
        progress.add(stored.nbytes)
        trim_heap()

    packed = pack_model(model, bits, finish, memory=memory)
    model.eval()  # type: ignore[no-untyped-call]
    return packed


def _reason_against(skeleton: PreTrainedModel, *, is_cuda: bool) -> str | None:
    """Asked last: the step may have to be compiled for the answer."""
    if is_cuda:
        return "the model runs on a GPU"
    if (reason := reason_against(skeleton)) is not None:
        return reason
    instructions = best_instructions()
    if instructions is None:
        return f"this processor {LACKS_INSTRUCTIONS}"
    try:
        load_library(instructions)
    except (CannotBuild, OSError) as error:
        return str(error)
    return None
