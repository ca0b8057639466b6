"""The torch executor on a GPU: paged attention, CUDA graphs, and no wait in a step but for its logits."""

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import PreTrainedModel

from engine.batch import Batch
from engine.executors.cuda_graphs import CudaRecorder, Recorder, StepGraphs
from engine.executors.layer_cache import StepAttention
from engine.executors.paged_attention import PAGE_TOKENS, PagedAttention, VarlenKernel, can_page
from engine.executors.step_inputs import StepInputs, StepShape, blocks_seen, readers_of_spans
from engine.executors.torch_executor import TorchExecutor

#: Rows of a step that take about as long as one: up to here a GPU waits for the weights.
CHEAP_ROWS_CUDA = 64


class CudaExecutor(TorchExecutor):
    """A TorchExecutor for a model on one or several GPUs; its blocks are the flash kernel's pages.

    Where that kernel cannot be used (float32, GPUs before Ampere), it computes what TorchExecutor
    computes. Steps are recorded where the whole model is on one GPU; `most_sequences` says how many rows
    they often have. `kernel` and `recorder` stand in for torch's own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        memory_bytes: int,
        most_tokens: int,
        *,
        most_sequences: int,
        block_tokens: int = PAGE_TOKENS,
        use_graphs: bool = True,
        kernel: VarlenKernel | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._kernel: VarlenKernel | None = None  # the probing step has no pages yet
        self._graphs: StepGraphs | None = None
        super().__init__(model, memory_bytes, most_tokens + block_tokens, block_tokens)
        self.cache_blocks -= 1  # the last one is for rows that only fill a graph
        if self.cache_blocks < 1:
            raise ValueError(f"{memory_bytes} bytes hold no cache block of {block_tokens} tokens")
        self.cheap_rows = CHEAP_ROWS_CUDA
        self._kernel = kernel or self._own_kernel()
        recorder = recorder or self._own_recorder()
        if use_graphs and self._kernel is not None and recorder is not None:
            self._graphs = self._step_graphs(recorder, self._kernel)
            self._record_likely(self._graphs, max(most_sequences, CHEAP_ROWS_CUDA))

    @torch.inference_mode()
    def run(self, batch: Batch) -> torch.Tensor:
        """Compute the rows; see `Executor.run`."""
        if self._kernel is None:
            return super().run(batch)
        logits = None if self._graphs is None else self._graphs.run(batch)
        if logits is None:
            logits = self._run_paged(batch, self._kernel)
        return _to_host(logits)

    def _own_kernel(self) -> VarlenKernel | None:
        return varlen_attn if all(can_page(cache) for cache in self._caches.values()) else None

    def _own_recorder(self) -> Recorder | None:
        devices = {parameter.device for parameter in self._model.parameters()}
        device = devices.pop()
        return None if devices or device.type != "cuda" else CudaRecorder(device)

    def _step_graphs(self, recorder: Recorder, kernel: VarlenKernel) -> StepGraphs:
        return StepGraphs(
            self._compute,
            recorder,
            self._model.device,
            block_tokens=self.block_tokens,
            cache_blocks=self.cache_blocks,
            kernel=kernel,
        )

    @torch.inference_mode()
    def _record_likely(self, graphs: StepGraphs, most_rows: int) -> None:
        graphs.record_likely(most_rows)

    def _run_paged(self, batch: Batch, kernel: VarlenKernel) -> torch.Tensor:
        device = self._model.device
        readers = readers_of_spans(batch.spans)
        blocks = blocks_seen(readers, self.block_tokens)
        shape = StepShape(len(batch.tokens), len(readers), blocks, len(batch.logit_rows))
        host = StepInputs.on_host(shape, pinned=device.type == "cuda")
        host.fill(batch, readers)
        inputs = host.to(device)
        most_rows = max(reader.rows for reader in readers)
        most_context = max(reader.context_tokens for reader in readers)
        attention = PagedAttention(inputs, self.block_tokens, most_rows, most_context, kernel)
        return self._compute(inputs, attention, inputs.logit_rows)

    def _compute(
        self, inputs: StepInputs, attention: StepAttention, logit_rows: torch.Tensor | int = 0
    ) -> torch.Tensor:
        """Return logits on the device, [rows, vocabulary]; 0 stands for all rows."""
        output = self._model(
            input_ids=inputs.tokens[None],
            position_ids=inputs.positions[None],
            use_cache=False,
            logits_to_keep=logit_rows,
            cache_of=self._cache_of,
            step_attention=attention,
        )
        logits: torch.Tensor = output.logits[0]
        return logits


def _to_host(logits: torch.Tensor) -> torch.Tensor:
    """Return the logits as float32 on the host; a step that has none is not waited for."""
    if logits.device.type != "cuda" or not len(logits):
        return logits.float().cpu()
    host = torch.empty(logits.shape, dtype=torch.float32, pin_memory=True)
    host.copy_(logits.float(), non_blocking=True)
    torch.cuda.current_stream(logits.device).synchronize()
    return host
