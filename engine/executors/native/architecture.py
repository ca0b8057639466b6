"""Which models the native step computes, and where their parts are."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

#: The classes whose layers are of the one shape that the step knows; whether the halves of a rotary pair
#: are neighbours in a head (GLM) or half a head apart.
KNOWN = {
    "LlamaForCausalLM": False,
    "Qwen2ForCausalLM": False,
    "Qwen3ForCausalLM": False,
    "GlmForCausalLM": True,
    "Glm4ForCausalLM": True,
}

#: Rotary embeddings whose angles follow from a token's place alone.
ROTARY_KINDS = ("default", "linear", "llama3", "yarn")

#: Numbers that are computed at once: sizes are multiples of it.
VECTOR_NUMBERS = 16

#: The largest head.
MOST_HEAD_SIZE = 512

#: Places of rows of weights; -1 stands for a row of zeros.
Order = npt.NDArray[np.int32]


class Sizes(NamedTuple):
    """What a model's config says about its shape."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    epsilon: float


def sizes_of(model: PreTrainedModel) -> Sizes:
    """Return the sizes of a model whose class is known here."""
    config = model.config
    heads = int(config.num_attention_heads)
    return Sizes(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=heads,
        key_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_size=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocabulary=int(config.vocab_size),
        epsilon=float(config.rms_norm_eps),
    )


def reason_against(model: PreTrainedModel) -> str | None:
    """Return why the native step cannot compute this model, or None; no weight is looked at."""
    name, config = type(model).__name__, model.config
    if name not in KNOWN:
        return f"{name} is not one of {', '.join(KNOWN)}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        return f"it has layers of the kind {', '.join(sorted(kinds))}"
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rotary not in ROTARY_KINDS:
        return f"its rotary embedding is {rotary}"
    return _reason_against_sizes(sizes_of(model))


def _reason_against_sizes(sizes: Sizes) -> str | None:
    for what in ("hidden", "intermediate", "head_size"):
        size = getattr(sizes, what)
        if size % VECTOR_NUMBERS:
            return f"its {what} of {size} is no multiple of {VECTOR_NUMBERS}"
    if sizes.heads % sizes.key_heads or sizes.head_size > MOST_HEAD_SIZE:
        return f"it has {sizes.heads} heads of {sizes.head_size} for {sizes.key_heads} key heads"
    return None


def head_order(heads: int, head_size: int, rotary_size: int, *, is_interleaved: bool) -> Order:
    """Return which row of a query's or key's weight stands where.

    Pairs of neighbours are taken apart, all first halves before all second ones; the products of
    queries with keys stay what they were, since both are arranged alike.
    """
    within = np.arange(head_size)
    if is_interleaved:
        turned = within[:rotary_size]
        within = np.concatenate([turned[0::2], turned[1::2], within[rotary_size:]])
    return (np.arange(heads)[:, None] * head_size + within).reshape(-1).astype(np.int32)


def gate_up_order(intermediate: int) -> Order:
    """Return gate and up by turns, 32 rows of each: a panel has both for the same columns."""
    half = 32
    columns = -(-intermediate // half) * half
    rows = np.arange(columns)
    gate = np.where(rows < intermediate, rows, -1).reshape(-1, half)
    up = np.where(gate >= 0, gate + intermediate, -1)
    return np.stack([gate, up], 1).reshape(-1).astype(np.int32)


def attention_linears(layer: nn.Module) -> list[nn.Linear]:
    """Return the layers that give queries, keys and values."""
    return [layer.get_submodule(f"self_attn.{name}_proj") for name in "qkv"]  # type: ignore[misc]


def mlp_linears(layer: nn.Module) -> list[nn.Linear]:
    """Return the layers that give gate and up, one for both or one for each."""
    mlp = layer.get_submodule("mlp")
    names = ("gate_up_proj",) if hasattr(mlp, "gate_up_proj") else ("gate_proj", "up_proj")
    return [mlp.get_submodule(name) for name in names]  # type: ignore[misc]


class Norms(NamedTuple):
    """A layer's norms; what an architecture does not have is None."""

    input_norm: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    attended_norm: torch.Tensor | None
    mlp_input_norm: torch.Tensor
    mlp_output_norm: torch.Tensor | None


def norms_of(layer: nn.Module) -> Norms:
    """Return the weights of a layer's norms in float32. (Glm4 normalizes what its blocks give, too.)"""
    found = {
        name: module.get_parameter("weight").detach().float().contiguous()
        for name, module in layer.named_modules()
        if name.endswith("norm")
    }
    return Norms(
        found["input_layernorm"],
        found.get("self_attn.q_norm"),
        found.get("self_attn.k_norm"),
        found.get("post_self_attn_layernorm"),
        found["post_attention_layernorm"],
        found.get("post_mlp_layernorm"),
    )
