"""Loading a checkpoint: planned from its config and the heads of its files, then carried out."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from engine.checkpoints.checkpoint import Checkpoint
from engine.engine import STEP_TOKENS
from engine.executors.native.huge_pages import HugePages
from engine.executors.native.weights import PackedModel
from engine.loading.budget import cpu_budget, cuda_budget
from engine.loading.devices import DeviceMap, spread_over_gpus
from engine.loading.footprint import measure_footprint
from engine.loading.free_memory import free_cpu_bytes, free_cuda_bytes
from engine.loading.heap import large_pieces_apart
from engine.loading.linears import LinearForms
from engine.loading.mapped_files import MappedFiles
from engine.loading.native import (
    TORCH_TIER,
    CannotRunNative,
    ExecutorChoice,
    as_packed,
    chooses_native,
    pack,
)
from engine.loading.plan import Budget, Footprint, MemoryPlan, Wish, plan_memory
from engine.loading.weights import WeightMover

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlannedLoad:
    """A load that fits, ready to be carried out."""

    checkpoint: Checkpoint
    memory: MemoryPlan
    dtype: torch.dtype
    forms: LinearForms
    devices: DeviceMap
    ahead: HugePages
    is_native: bool

    def carry_out(self) -> PreTrainedModel:
        """Bring the weights to where they run; raises whatever says that the files cannot be used."""
        begin = time.monotonic()
        self.ahead.settle()
        model = self.checkpoint.map_weights()
        mapped = MappedFiles(self.checkpoint.weight_files())
        with large_pieces_apart():
            WeightMover(model, self.forms, self.dtype, mapped).move(self.devices)
        self.devices.connect(model)
        model.eval()  # type: ignore[no-untyped-call]
        logger.info("Loaded the weights in %.1f s", time.monotonic() - begin)
        return model

    def carry_out_packed(self) -> tuple[PreTrainedModel, PackedModel]:
        """Pack the weights for the native step; the model is left with what else its config says."""
        begin = time.monotonic()
        model = self.checkpoint.map_weights()
        with large_pieces_apart():
            mapped = MappedFiles(self.checkpoint.weight_files())
            packed = pack(model, self.memory.bits, mapped, self.ahead)
        self.ahead.settle()
        logger.info("Packed the weights in %.1f s", time.monotonic() - begin)
        return model, packed


def plan_load(
    checkpoint: Checkpoint,
    wish: Wish,
    *,
    is_cuda: bool,
    memory_bytes: int | None,
    capacity: int,
    executor: ExecutorChoice = "torch",
    ahead: HugePages | None = None,
) -> PlannedLoad:
    """Choose executor, tier, cache and devices, and log them in a line.

    Packed weights go to the memory that was asked for `ahead`; it counts as free until then. Raises
    DoesNotFit, and CannotRunNative if only the native step may compute and cannot.
    """
    ahead = ahead or HugePages()
    skeleton = checkpoint.skeleton()
    is_native = chooses_native(executor, skeleton, checkpoint.dtype, wish.tier, is_cuda=is_cuda)
    budget, gpus = _budget(memory_bytes, ahead, is_cuda=is_cuda)
    memory = plan_memory(_footprint(checkpoint, skeleton, capacity, is_native, is_cuda=is_cuda), budget, wish)
    if is_native and memory.tier == TORCH_TIER:
        if executor == "native":
            raise CannotRunNative(f"--executor native: only tier {TORCH_TIER} fits, which is torch's")
        is_native = False
        footprint = _footprint(checkpoint, skeleton, capacity, is_native, is_cuda=is_cuda)
        memory = plan_memory(footprint, budget, wish)
    level = logging.WARNING if wish.tier == "auto" and memory.tier != "large" else logging.INFO
    logger.log(level, "Memory: %s; allowed is %s", memory, budget)
    dtype = _dtype(checkpoint, is_native, is_cuda=is_cuda)
    forms = LinearForms(memory.bits, dtype, is_cuda=is_cuda)
    devices = DeviceMap({"": torch.device("cpu")})
    if is_cuda:
        room = [one * (budget.size_bytes - memory.cache_bytes) // sum(gpus) for one in gpus]
        devices = spread_over_gpus(skeleton, forms, dtype, room)
    return PlannedLoad(checkpoint, memory, dtype, forms, devices, ahead, is_native)


def _budget(memory_bytes: int | None, ahead: HugePages, *, is_cuda: bool) -> tuple[Budget, Sequence[int]]:
    """Return what may be taken, and the free memory of each GPU that may be used."""
    if is_cuda:
        gpus = free_cuda_bytes()
        return cuda_budget(memory_bytes, gpus), gpus
    made_bytes = ahead.made_bytes  # first: what is made meanwhile counts once at most
    return cpu_budget(memory_bytes, made_bytes + free_cpu_bytes()), []


def _footprint(
    checkpoint: Checkpoint, skeleton: PreTrainedModel, capacity: int, is_native: bool, *, is_cuda: bool
) -> Footprint:
    dtype = _dtype(checkpoint, is_native, is_cuda=is_cuda)
    footprint = measure_footprint(
        skeleton, dtype, is_cuda=is_cuda, step_tokens=STEP_TOKENS, capacity=capacity
    )
    return as_packed(footprint, skeleton) if is_native else footprint


def _dtype(checkpoint: Checkpoint, is_native: bool, *, is_cuda: bool) -> torch.dtype:
    return torch.bfloat16 if is_native else compute_dtype(checkpoint.dtype, is_cuda=is_cuda)


def compute_dtype(stored: torch.dtype, *, is_cuda: bool) -> torch.dtype:
    """On the CPU, 16 bit only where it multiplies bfloat16 itself; emulated, that is slower than float32."""
    has_16_bits = stored in (torch.bfloat16, torch.float16)
    if is_cuda or (has_16_bits and torch.cpu._is_avx512_bf16_supported()):
        return torch.bfloat16
    return torch.float32
