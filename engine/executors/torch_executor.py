"""Any Hugging Face decoder as it is, its attention replaced by one that reads Lectern's block cache.

transformers hands every layer's attention to a function registered by name, and passes unknown
keyword arguments of `model(...)` through to it (`AttentionInterface`, transformers' documentation
"Attention backends"). So all sequences of a step are laid behind each other in one row of tokens,
everything but attention sees a single text, and a `StepAttention` takes them apart again.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel

from engine.batch import Batch, Span
from engine.cache import BLOCK_TOKENS
from engine.executors.grouped_attention import GroupedAttention
from engine.executors.layer_cache import LayerCache, StepAttention

#: The name under which transformers knows our attention.
ATTENTION = "lectern_blocks"

#: Rows that a step computes in about the time of one: the weights are read once for all of them.
CHEAP_ROWS = 4

#: Blocks behind the cache's own that are never written: what lies behind a context is read from there,
#: so that nothing of another sequence is touched, not even where it is masked (0 times NaN is NaN).
EMPTY_BLOCKS = 1

#: Arguments of attention that change its result and that this executor does not compute.
UNSUPPORTED = ("softcap", "s_aux", "sliding_window")

#: The kind of layer whose memory is keys and values alone; others (recurrent, chunked) would lose theirs.
SUPPORTED_LAYER = "full_attention"

#: Rotary embeddings that change with the longest text of a batch, so that neighbours would change answers.
UNSUPPORTED_ROTARY = ("dynamic", "longrope")


class UnsupportedModel(Exception):
    """The architecture asks for something that this executor cannot compute."""


class TorchExecutor:
    """A transformers model and the key/value cache of its layers.

    The cache takes `memory_bytes`, or less where `most_tokens` can be held in less. Raises
    UnsupportedModel if the model's attention is of a kind that is not known here, and ValueError if
    not even one block fits.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        memory_bytes: int,
        most_tokens: int,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        self.block_tokens = block_tokens
        self.cheap_rows = CHEAP_ROWS
        self._model = model
        self._model.set_attn_implementation(ATTENTION)
        self._caches: dict[int, LayerCache] = {}
        self.bytes_per_token = self._probe()
        affordable = memory_bytes // (self.bytes_per_token * block_tokens) - EMPTY_BLOCKS
        self.cache_blocks = min(affordable, -(-most_tokens // block_tokens))
        if self.cache_blocks < 1:
            raise ValueError(f"{memory_bytes} bytes hold no cache block of {block_tokens} tokens")
        for cache in self._caches.values():
            cache.resize((self.cache_blocks + EMPTY_BLOCKS) * block_tokens)

    @torch.inference_mode()
    def run(self, batch: Batch) -> torch.Tensor:
        """Compute the rows; see `Executor.run`."""
        device = self._model.device
        output = self._model(
            input_ids=torch.tensor([batch.tokens], device=device),
            position_ids=torch.tensor([batch.positions], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(batch.logit_rows, dtype=torch.long, device=device),
            cache_of=self._cache_of,
            step_attention=GroupedAttention(batch, self.block_tokens),
        )
        logits: torch.Tensor = output.logits[0]
        return logits.float().cpu()

    def _cache_of(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> LayerCache:
        """Return a layer's cache; the probing step finds out what shape it has."""
        if layer not in self._caches:
            self._caches[layer] = LayerCache(torch.zeros_like(keys[:1]), torch.zeros_like(values[:1]))
        return self._caches[layer]

    def _probe(self) -> int:
        """Run one token through every layer to learn the shapes of its cache; return bytes per token."""
        self.run(Batch([0], [0], [0], [Span(0, 1, 1, (0,))], [0]))
        if not self._caches:
            raise UnsupportedModel(
                f"{type(self._model).__name__} does not use transformers' attention interface"
            )
        self._check_layers()
        return sum(cache.bytes_per_token for cache in self._caches.values())

    def _check_layers(self) -> None:
        config = self._model.config
        name = type(self._model).__name__
        strangers = set(getattr(config, "layer_types", None) or ()) - {SUPPORTED_LAYER}
        if strangers or len(self._caches) != config.num_hidden_layers:
            kinds = ", ".join(sorted(strangers)) or "not attention"
            raise UnsupportedModel(f"{name} has layers of a kind that is not supported yet: {kinds}")
        rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
        if rotary in UNSUPPORTED_ROTARY:
            raise UnsupportedModel(f"{name} uses {rotary} rotary embeddings, which are not supported yet")


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    cache_of: Callable[[int, torch.Tensor, torch.Tensor], LayerCache],
    step_attention: StepAttention,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer; query, key, value [1, heads, rows, size] → output [1, rows, heads, size]."""
    for name in UNSUPPORTED:
        if options.get(name) is not None:
            raise UnsupportedModel(f"{type(module).__name__} uses {name}, which is not supported yet")
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    cache = cache_of(int(module.layer_idx), keys, values)  # type: ignore[arg-type]
    cache.write(step_attention.slots_on(query.device), keys, values)
    return step_attention.attend(query[0].transpose(0, 1), cache, scaling)[None], None


AttentionInterface.register(ATTENTION, _attend)
