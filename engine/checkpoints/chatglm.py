"""Original config.json and weight names of ChatGLM2, ChatGLM3 and GLM-4, as transformers' Glm wants them.

Source: configuration_chatglm.py and modeling_chatglm.py of the published checkpoints, and transformers'
own models/glm/convert_glm_weights_to_hf.py.
"""

from collections.abc import Mapping
from typing import Any

from transformers import GlmConfig, GlmForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Split, WeightConverter, WeightRenaming

from engine.checkpoints.families import Family, UnsupportedCheckpoint

#: Base of the rotary frequencies before `rope_ratio`.
ROTARY_BASE = 10_000.0

#: Share of a head that is rotated: modeling_chatglm.py makes its table for half of `kv_channels`.
ROTARY_SHARE = 0.5

#: Fields that change the computation: the value that Glm computes, and what the original takes when absent.
_REQUIRED: dict[str, tuple[object, object]] = {
    "rmsnorm": (True, True),
    "post_layer_norm": (True, True),
    "multi_query_attention": (True, False),
    "original_rope": (True, True),
    "apply_residual_connection_post_layernorm": (False, False),
    "add_bias_linear": (False, False),
    "quantization_bit": (0, 0),
    "pre_seq_len": (None, None),
    "vision_config": (None, None),
    "quantization_config": (None, None),
}

#: Sizes that config.json must give; each counts something, so it is at least 1.
_SIZES = (
    "num_layers",
    "padded_vocab_size",
    "hidden_size",
    "ffn_hidden_size",
    "kv_channels",
    "num_attention_heads",
    "multi_query_group_num",
    "seq_length",
)

#: Rotary frequencies, which follow from the config.
IGNORED_WEIGHT = "transformer.rotary_pos_emb.inv_freq"

_EMBEDDING = "transformer.embedding.word_embeddings.weight"
_LAYER = "transformer.encoder.layers.{layer}."
_FINAL_NORM = "transformer.encoder.final_layernorm.weight"
_OUTPUT = "transformer.output_layer.weight"


class ChatGlmForCausalLM(GlmForCausalLM):  # type: ignore[no-untyped-call]
    """Glm with weights under the original names; a class of its own leaves Glm's own loading as it is."""

    _keys_to_ignore_on_load_unexpected = {r"^transformer\.rotary_pos_emb\.inv_freq$"}  # noqa: RUF012


def register_names() -> None:
    """Tell transformers how ChatGlmForCausalLM's weights are called in original checkpoints."""
    renamings = {
        r"^transformer\.embedding\.word_embeddings\.": "model.embed_tokens.",
        r"^transformer\.encoder\.final_layernorm\.": "model.norm.",
        r"^transformer\.encoder\.layers\.": "model.layers.",
        r"^transformer\.output_layer\.": "lm_head.",
        r"\.self_attention\.dense\.": ".self_attn.o_proj.",
        r"\.mlp\.dense_h_to_4h\.": ".mlp.gate_up_proj.",
        r"\.mlp\.dense_4h_to_h\.": ".mlp.down_proj.",
    }
    mapping: list[WeightConverter | WeightRenaming] = [
        WeightRenaming(source, target) for source, target in renamings.items()
    ]
    mapping.append(
        WeightConverter(
            "self_attention.query_key_value",
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            operations=[Split(dim=0)],
        )
    )
    register_checkpoint_conversion_mapping(ChatGlmForCausalLM.__name__, mapping, overwrite=True)


def glm_config(original: Mapping[str, Any], family: Family) -> GlmConfig:
    """Return Glm's config for an original config.json.

    Raises UnsupportedCheckpoint for a field that is missing or asks for what Glm does not compute.
    """
    for name in _SIZES:
        if not isinstance(original.get(name), int) or isinstance(original[name], bool) or original[name] < 1:
            raise UnsupportedCheckpoint(f"config.json: {name} must be a positive integer (ChatGLM2 or newer)")
    for name, (wanted, default) in _REQUIRED.items():
        if original.get(name, default) != wanted:
            given = original.get(name, "missing")
            raise UnsupportedCheckpoint(f"config.json: {name} must be {wanted!r}, it is {given!r:.80}")
    if original["num_attention_heads"] % original["multi_query_group_num"]:
        raise UnsupportedCheckpoint("config.json: multi_query_group_num must divide num_attention_heads")
    return GlmConfig(
        vocab_size=original["padded_vocab_size"],
        hidden_size=original["hidden_size"],
        intermediate_size=original["ffn_hidden_size"],
        num_hidden_layers=original["num_layers"],
        num_attention_heads=original["num_attention_heads"],
        num_key_value_heads=original["multi_query_group_num"],
        head_dim=original["kv_channels"],
        max_position_embeddings=original["seq_length"],
        rms_norm_eps=_number(original, "layernorm_epsilon", 1e-5),
        attention_bias=bool(original.get("add_qkv_bias", False)),
        rope_parameters=_rotary(_number(original, "rope_ratio", 1.0), family),
        tie_word_embeddings=False,
        eos_token_id=list(family.end_ids),
        pad_token_id=None,
        dtype=original.get("torch_dtype") or original.get("dtype"),
    )


def weight_shapes(config: GlmConfig) -> dict[str, tuple[int, ...]]:
    """Return the original name and shape of every weight that the config asks for."""
    hidden, inner = config.hidden_size, config.intermediate_size
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    assert groups is not None  # glm_config sets both
    assert size is not None
    fused = (heads + 2 * groups) * size
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attention.query_key_value.weight": (fused, hidden),
        "self_attention.dense.weight": (hidden, heads * size),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.dense_h_to_4h.weight": (2 * inner, hidden),
        "mlp.dense_4h_to_h.weight": (hidden, inner),
    }
    if config.attention_bias:
        layer["self_attention.query_key_value.bias"] = (fused,)
    shapes: dict[str, tuple[int, ...]] = {
        _EMBEDDING: (config.vocab_size, hidden),
        _FINAL_NORM: (hidden,),
        _OUTPUT: (config.vocab_size, hidden),
    }
    for number in range(config.num_hidden_layers):
        prefix = _LAYER.format(layer=number)
        shapes |= {prefix + name: shape for name, shape in layer.items()}
    return shapes


def check_weights(found: Mapping[str, tuple[int, ...]], config: GlmConfig) -> None:
    """Raise UnsupportedCheckpoint, with the first name, if weights are missing, unknown or misshapen."""
    wanted = weight_shapes(config)
    if missing := sorted(wanted.keys() - found.keys()):
        raise UnsupportedCheckpoint(f"{len(missing)} weights are missing, the first is {missing[0]}")
    if unknown := sorted(found.keys() - wanted.keys() - {IGNORED_WEIGHT}):
        raise UnsupportedCheckpoint(f"{len(unknown)} weights are unknown, the first is {unknown[0]}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise UnsupportedCheckpoint(
                f"{name} has the shape {list(found[name])}, config.json asks for {list(shape)}"
            )


def _number(original: Mapping[str, Any], name: str, default: float) -> float:
    value = original.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UnsupportedCheckpoint(f"config.json: {name} must be a positive number, it is {value!r:.80}")
    return float(value)


def _rotary(ratio: float, family: Family) -> dict[str, Any]:
    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE, "partial_rotary_factor": ROTARY_SHARE}
    if family.ratio_scales_base:
        return rotary | {"rope_theta": ROTARY_BASE * ratio}
    return rotary if ratio == 1 else rotary | {"rope_type": "linear", "factor": ratio}
