"""What a packed model takes in memory, from its config alone."""

from transformers import PreTrainedModel

from engine.executors.native.architecture import (
    Sizes,
    attention_linears,
    gate_up_order,
    mlp_linears,
    sizes_of,
)
from engine.executors.native.weights import PANEL_COLUMNS, PackedLinear, PackedModel


def packed_bytes(skeleton: PreTrainedModel, bits: int) -> int:
    """Return the memory of a model's weights once they are packed; `skeleton` needs none behind its own."""
    sizes = sizes_of(skeleton)
    layers = skeleton.get_submodule("model.layers")
    first = layers.get_submodule("0")
    norms = sum(norm.numel() for path, norm in first.named_parameters() if path.endswith("norm.weight"))
    projected = (sizes.heads + 2 * sizes.key_heads) * sizes.head_size
    has_bias = attention_linears(first)[0].bias is not None
    of_layer = (
        4 * norms
        + _linear_bytes(sizes.hidden, projected, bits, has_bias=has_bias)
        + _linear_bytes(
            sizes.heads * sizes.head_size, sizes.hidden, bits, has_bias=_has_bias(first, "self_attn.o_proj")
        )
        + _linear_bytes(
            sizes.hidden,
            len(gate_up_order(sizes.intermediate)),
            bits,
            has_bias=mlp_linears(first)[0].bias is not None,
        )
        + _linear_bytes(sizes.intermediate, sizes.hidden, bits, has_bias=_has_bias(first, "mlp.down_proj"))
    )
    head = skeleton.get_output_embeddings()  # type: ignore[no-untyped-call]
    output = _linear_bytes(sizes.hidden, sizes.vocabulary, bits, has_bias=head.bias is not None)
    return sizes.layers * of_layer + output + _rest_bytes(sizes)


def bytes_of(model: PackedModel) -> int:
    """Count what a packed model holds."""
    linears = [model.head, *(linear for layer in model.layers for linear in layer.linears)]
    norms = [norm for layer in model.layers for norm in layer.norms if norm is not None]
    rest = [*norms, model.embedding, model.final_norm]
    return sum(_held(linear) for linear in linears) + sum(one.nbytes for one in rest)


def _rest_bytes(sizes: Sizes) -> int:
    """The embedding in bfloat16 and the last norm in float32."""
    return sizes.vocabulary * sizes.hidden * 2 + sizes.hidden * 4


def _linear_bytes(inputs: int, outputs: int, bits: int, *, has_bias: bool) -> int:
    columns = -(-outputs // PANEL_COLUMNS) * PANEL_COLUMNS
    numbers_of_column = (2 if bits == 8 else 0) + has_bias
    return columns * (inputs * bits // 8 + 4 * numbers_of_column)


def _has_bias(layer: object, path: str) -> bool:
    linear = layer.get_submodule(path)  # type: ignore[attr-defined]
    return linear.bias is not None


def _held(linear: PackedLinear) -> int:
    parts = (linear.weights, linear.scales, linear.first_sums, linear.bias)
    return sum(part.nbytes for part in parts if part is not None)
