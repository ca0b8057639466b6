"""Attention over the block cache by torch's variable-length flash kernel, which reads the blocks in place."""

from collections.abc import Callable

import torch
from torch.nn.attention.varlen import varlen_attn

from engine.executors.layer_cache import LayerCache
from engine.executors.step_inputs import StepInputs

#: Tokens of a cache block: the kernel takes pages of a multiple of 256 tokens and no others.
PAGE_TOKENS = 256

#: What the kernel can compute: 16 bit, heads of a multiple of 8 up to 256 numbers, Ampere or newer.
PAGED_TYPES = (torch.bfloat16, torch.float16)
HEAD_MULTIPLE = 8
MOST_HEAD_SIZE = 256
LEAST_CAPABILITY = (8, 0)

#: A function of `varlen_attn`'s form.
VarlenKernel = Callable[..., torch.Tensor | tuple[torch.Tensor, torch.Tensor]]


class PagedAttention:
    """The attention of one step, [rows, heads, size] in one call for all readers.

    `most_rows` and `most_context` are the largest of any reader, known on the host.
    """

    def __init__(
        self,
        inputs: StepInputs,
        block_tokens: int,
        most_rows: int,
        most_context: int,
        kernel: VarlenKernel = varlen_attn,
    ) -> None:
        self._block_tokens = block_tokens
        self._most_rows = most_rows
        self._most_context = most_context
        self._kernel = kernel
        self._on_device = {inputs.buffer.device: inputs}

    def slots_on(self, device: torch.device) -> torch.Tensor:
        return self._on(device).slots

    def attend(self, query: torch.Tensor, cache: LayerCache, scaling: float | None) -> torch.Tensor:
        """[rows, heads, size] → [rows, heads, size], over keys and values that the cache holds.

        A single row sees all of its context, so it needs no causal mask; and only without one does the
        kernel fold the query heads of a key head into one read of the cache. Where it does not fold, a
        context divided among several thread blocks is put together wrongly for all sequences but the
        first (pytorch/pytorch issue 194167), so there it must not be divided.
        """
        inputs = self._on(query.device)
        heads, key_heads = query.shape[1], cache.keys.shape[1]
        is_folded = self._most_rows == 1 and heads > key_heads
        output = self._kernel(
            query,
            self._pages(cache.keys),
            self._pages(cache.values),
            inputs.row_starts,
            inputs.context_starts,
            self._most_rows,
            self._most_context,
            scale=scaling,
            window_size=(-1, -1) if self._most_rows == 1 else (-1, 0),
            enable_gqa=heads != key_heads,
            seqused_k=inputs.contexts,
            block_table=inputs.table,
            num_splits=None if is_folded else 1,
        )
        assert isinstance(output, torch.Tensor)
        return output

    def _pages(self, part: torch.Tensor) -> torch.Tensor:
        return part.view(-1, self._block_tokens, *part.shape[1:])

    def _on(self, device: torch.device) -> StepInputs:
        if device not in self._on_device:
            self._on_device[device] = next(iter(self._on_device.values())).to(device)
        return self._on_device[device]


def can_page(cache: LayerCache) -> bool:
    """Whether the kernel can read this layer's cache; if not, `GroupedAttention` does."""
    keys, values = cache.keys, cache.values
    if keys.device.type != "cuda" or torch.version.hip is not None:
        return False
    return (
        torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(keys.device) >= LEAST_CAPABILITY
        and _has_form(keys, values)
    )


def _has_form(keys: torch.Tensor, values: torch.Tensor) -> bool:
    size = keys.shape[-1]
    return (
        keys.dtype in PAGED_TYPES
        and keys.shape == values.shape
        and size % HEAD_MULTIPLE == 0
        and size <= MOST_HEAD_SIZE
    )
