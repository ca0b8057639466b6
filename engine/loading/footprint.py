"""What a model will take, from its config alone: the memory of its weights, of a step, of a cached token."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from engine.cache import BLOCK_TOKENS
from engine.executors.paged_attention import PAGE_TOKENS
from engine.loading.linears import LinearForms, linear_layers
from engine.loading.plan import BITS, Footprint

#: Tensors of a step that are alive together, beside those of the widest layer: residual, normalized,
#: query, key, value and attended rows, some of them in float32.
HIDDEN_COPIES = 10

#: Blocks that a cache has beyond those it fills: one that stays empty, one that only fills a recorded step,
#: and what rounding a context up to whole blocks takes.
SPARE_BLOCKS = 3

#: Copies of the logits on their way to the sampler: as computed, as float32, and as it changes them.
LOGITS_COPIES = 3


def measure_footprint(
    skeleton: PreTrainedModel, dtype: torch.dtype, *, is_cuda: bool, step_tokens: int, capacity: int
) -> Footprint:
    """Return what the model takes if everything but compressed weights is of `dtype`.

    `skeleton` needs no memory behind its weights. A step computes up to `step_tokens` rows, and
    logits for up to `capacity` of them.
    """
    config = skeleton.config.get_text_config()
    by_tier = {
        tier: weight_bytes(skeleton, LinearForms(bits, dtype, is_cuda=is_cuda), dtype)
        for tier, bits in BITS.items()
    }
    return Footprint(
        weight_bytes=by_tier,
        workspace_bytes=_workspace_bytes(skeleton, config, step_tokens, capacity),
        token_bytes=token_bytes(config, dtype),
        spare_tokens=SPARE_BLOCKS * (PAGE_TOKENS if is_cuda else BLOCK_TOKENS),
    )


def weight_bytes(skeleton: PreTrainedModel, forms: LinearForms, dtype: torch.dtype) -> int:
    """Return the memory of all weights; one that several layers share counts once for those that keep it."""
    replaced, own = 0, set()
    for place in linear_layers(skeleton):
        needed = forms.bytes_of(place)
        if needed is not None:
            replaced += needed
            own.add(id(place.linear))
    kept = {
        id(weight): weight.numel()
        for module in skeleton.modules()
        for name, weight in module.named_parameters(recurse=False)
        if not (id(module) in own and name == "weight")
    }
    return replaced + sum(kept.values()) * dtype.itemsize


def token_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return what the keys and values of one token take in all layers."""
    heads = int(config.num_attention_heads)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * key_value_heads * head_size * dtype.itemsize)


def _workspace_bytes(
    skeleton: PreTrainedModel, config: PreTrainedConfig, step_tokens: int, capacity: int
) -> int:
    """Return what a step needs beside weights and cache, as if all of it were float32."""
    widest = max(
        (place.linear.out_features for place in linear_layers(skeleton) if not place.is_output),
        default=config.hidden_size,
    )
    rows = step_tokens * (HIDDEN_COPIES * config.hidden_size + 3 * widest)
    logits = capacity * config.vocab_size * LOGITS_COPIES
    return int((rows + logits) * torch.float32.itemsize)
