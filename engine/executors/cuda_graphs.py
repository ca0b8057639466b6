"""Steps of few rows as CUDA graphs: to launch their kernels one by one takes longer than to run them."""

import logging
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.batch import Batch
from engine.executors.paged_attention import PagedAttention, VarlenKernel
from engine.executors.step_inputs import (
    StepInputs,
    StepShape,
    blocks_seen,
    pad_rows,
    readers_of_rows,
)

logger = logging.getLogger(__name__)

#: Rows of the graphs: a step is padded up to the next of them.
ROW_BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)

#: Blocks of context of the smallest graphs, and how many times more those of the next size have: the
#: kernel divides a context as suits the longest that may come, and a short one into far too many parts.
LEAST_BLOCKS = 8
BLOCKS_FACTOR = 4

#: Seconds that recording may take when a model is loaded; what is left is recorded when it is needed.
RECORDING_SECONDS = 20.0

#: Runs before a recording, in which libraries choose kernels and take their workspaces.
WARM_UP_RUNS = 2

#: Computes a step whose inputs lie on the device; returns logits of all its rows, [rows, vocabulary].
Forward = Callable[[StepInputs, PagedAttention], torch.Tensor]


class Recording(Protocol):
    """A step that can be run again; it reads and writes the same memory every time."""

    @property
    def logits(self) -> torch.Tensor: ...

    def replay(self) -> None: ...


class Recorder(Protocol):
    """Makes recordings."""

    def record(self, compute: Callable[[], torch.Tensor]) -> Recording: ...


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A recording with the inputs that it reads, [`inputs.shape.rows`] of them."""

    inputs: StepInputs
    recording: Recording


@dataclass(frozen=True, slots=True)
class CudaRecording:
    """A CUDA graph and what it writes."""

    graph: torch.cuda.CUDAGraph
    logits: torch.Tensor

    def replay(self) -> None:
        self.graph.replay()


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, compute: Callable[[], torch.Tensor]) -> Recording:
        with torch.cuda.device(self._device):
            present, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(present)
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_RUNS):
                    compute()
            present.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                logits = compute()
        return CudaRecording(graph, logits)


class StepGraphs:
    """Recorded steps by rows and blocks of context.

    Every row is a reader of its own, so that any step of few rows fits one of them: new tokens of many
    sequences, guesses, forced tokens, short ends of prompts. `cache_blocks` may be read; the block with
    that number, which the engine does not know, is where rows write that only fill a graph.
    """

    def __init__(
        self,
        forward: Forward,
        recorder: Recorder,
        device: torch.device,
        *,
        block_tokens: int,
        cache_blocks: int,
        kernel: VarlenKernel,
    ) -> None:
        self._forward = forward
        self._recorder = recorder
        self._device = device
        self._block_tokens = block_tokens
        self._spare_block = cache_blocks
        self._block_buckets = block_buckets(cache_blocks)
        self._kernel = kernel
        self._recorded: dict[StepShape, RecordedStep] = {}
        self._can_record = True

    def record_likely(self, most_rows: int) -> None:
        """Record the steps with short contexts, largest first, until the time is over."""
        deadline = time.monotonic() + RECORDING_SECONDS
        largest = bucket(most_rows, ROW_BUCKETS) or ROW_BUCKETS[-1]
        for rows in reversed(ROW_BUCKETS[: ROW_BUCKETS.index(largest) + 1]):
            if time.monotonic() > deadline:
                logger.info("Steps of %d and fewer rows are recorded when they are needed", rows)
                return
            self._find(_shape(rows, self._block_buckets[0]))

    def run(self, batch: Batch) -> torch.Tensor | None:
        """Return logits of `batch.logit_rows` on the device, valid until the next run; None if it is too
        large.
        """
        shape = shape_of(batch, self._block_buckets, self._block_tokens)
        recorded = None if shape is None else self._find(shape)
        if recorded is None:
            return None
        inputs = recorded.inputs
        inputs.buffer.copy_(self._filled(batch, inputs.shape).buffer, non_blocking=True)
        recorded.recording.replay()
        wanted = len(batch.logit_rows)
        if batch.logit_rows == list(range(wanted)):
            return recorded.recording.logits[:wanted]
        return recorded.recording.logits.index_select(0, inputs.logit_rows[:wanted])

    def _find(self, shape: StepShape) -> RecordedStep | None:
        if shape not in self._recorded and self._can_record:
            try:
                self._recorded[shape] = self._record(shape)
            except RuntimeError:  # no memory is left, or the model does something that cannot be recorded
                logger.exception("Cannot record %s; such steps are computed without a graph", shape)
                self._can_record = False
        return self._recorded.get(shape)

    def _record(self, shape: StepShape) -> RecordedStep:
        """Record a step of nothing but padding."""
        inputs = self._filled(Batch([], [], [], [], []), shape).to(self._device)
        most_context = shape.blocks * self._block_tokens
        attention = PagedAttention(inputs, self._block_tokens, 1, most_context, self._kernel)
        return RecordedStep(inputs, self._recorder.record(lambda: self._forward(inputs, attention)))

    def _filled(self, batch: Batch, shape: StepShape) -> StepInputs:
        """Return the step on the host, padded to the shape."""
        host = StepInputs.on_host(shape, pinned=self._device.type == "cuda")
        readers = readers_of_rows(batch.spans)
        host.fill(*pad_rows(batch, readers, shape.rows, self._spare_block, self._block_tokens))
        return host


def shape_of(batch: Batch, buckets: tuple[int, ...], block_tokens: int) -> StepShape | None:
    """Return the smallest shape that is recorded and holds the step, or None."""
    rows = bucket(len(batch.tokens), ROW_BUCKETS)
    blocks = bucket(blocks_seen(readers_of_rows(batch.spans), block_tokens), buckets)
    return None if rows is None or blocks is None else _shape(rows, blocks)


def block_buckets(cache_blocks: int) -> tuple[int, ...]:
    """Return the blocks of context of the recorded steps; the largest is what the cache has."""
    found = [min(LEAST_BLOCKS, cache_blocks)]
    while found[-1] < cache_blocks:
        found.append(min(found[-1] * BLOCKS_FACTOR, cache_blocks))
    return tuple(found)


def bucket(number: int, buckets: tuple[int, ...]) -> int | None:
    """Return the smallest of the ascending buckets that holds the number, or None if none does."""
    place = bisect_left(buckets, number)
    return buckets[place] if place < len(buckets) else None


def _shape(rows: int, blocks: int) -> StepShape:
    return StepShape(rows=rows, readers=rows, blocks=blocks, logits=rows)
