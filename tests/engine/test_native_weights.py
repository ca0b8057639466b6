"""What is packed for the native step: which models, how much memory, and nothing of the wrong size."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from engine.executors.native.architecture import gate_up_order, head_order, reason_against
from engine.executors.native.executor import NativeExecutor
from engine.executors.native.footprint import bytes_of, packed_bytes
from engine.executors.native.library import NativeError
from engine.executors.native.processor import Instructions
from engine.executors.native.structures import Buffer
from engine.executors.native.weights import pack_model
from engine.executors.rounding import round_to_8_bits
from tests.engine.native import BITS, EVERY_SET, packed, small_model
from tests.engine.parts import ARCHITECTURES, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_architectures_that_are_served_most_are_known(architecture):
    assert reason_against(small_model(architecture)) is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: tiny_model("Qwen2"), "head_size of 8 is no multiple of 16"),
        (lambda: small_model(hidden_size=72), "hidden of 72"),
        (lambda: small_model("Llama", hidden_act="gelu"), "activation is gelu"),
        (
            lambda: small_model(use_sliding_window=True, sliding_window=8, max_window_layers=0),
            "sliding_attention",
        ),
        (
            lambda: small_model(
                "Llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
            ),
            "rotary embedding is dynamic",
        ),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(model, reason):
    made = model()
    assert reason in reason_against(made)
    with pytest.raises(NativeError, match=reason):
        pack_model(made, 16)


def test_other_numbers_of_bits_are_refused():
    with pytest.raises(NativeError, match="bits: must be 16 or 8, not 4"):
        pack_model(small_model(), 4)


@BITS
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_packed_model_takes_is_known_before_it_is_there(architecture, bits):
    model = small_model(architecture, vocab_size=333, intermediate_size=80)
    assert bytes_of(packed(model, bits)) == packed_bytes(model, bits)


def test_packing_leaves_no_weight_behind_and_tells_which_are_done():
    packed(small_model())  # skips where nothing can be packed
    model, done = small_model(tie_word_embeddings=False), []
    weights = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    pack_model(model, 16, lambda stored: done.append(id(stored)))
    assert set(done) == weights
    assert not any(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))


def test_a_weight_that_the_embedding_shares_is_not_given_back():
    packed(small_model())
    model, done = small_model(tie_word_embeddings=True), []
    pack_model(model, 16, lambda stored: done.append(id(stored)))
    assert id(model.model.embed_tokens.weight) not in done


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: replace(layer, norms=layer.norms._replace(input_norm=torch.ones(63))),
        lambda layer: replace(layer, down=replace(layer.down, inputs=64)),
        lambda layer: replace(layer, down=replace(layer.down, weights=layer.down.weights[:-64])),
        lambda layer: replace(layer, down=replace(layer.down, bias=torch.zeros(3))),
        lambda layer: replace(layer, gate_up=layer.attended),
        lambda layer: replace(layer, attended=replace(layer.attended, scales=None)),
    ],
)
def test_weights_that_do_not_have_the_models_sizes_are_refused(change):
    model = packed(small_model(), 8)
    layers = (model.layers[0], change(model.layers[1]))
    with pytest.raises(NativeError, match="must have"):
        NativeExecutor(replace(model, layers=layers), 1 << 20, 64)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hidden": 72}, "multiples of 16"),
        ({"heads": 3}, "multiple of the key heads"),
        ({"layers": 3}, "as many as the shape says"),
        ({"vocabulary": 1 << 40}, "from 1 to 16777216"),
        ({"head_size": 1024}, "too many or too large"),
        ({"vocabulary": 400}, "embedding: must have"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change, complaint):
    model = packed(small_model())
    with pytest.raises(NativeError, match=complaint):
        NativeExecutor(replace(model, sizes=model.sizes._replace(**change)), 1 << 40, 64)


def test_numbers_that_do_not_lie_one_behind_the_other_are_refused():
    with pytest.raises(ValueError, match="contiguous"):
        Buffer.of(torch.zeros(4, 4).t())
    with pytest.raises(ValueError, match="contiguous"):
        Buffer.of(torch.zeros(4, 4).numpy()[:, ::2])


def test_pairs_of_neighbours_are_taken_apart_and_the_rest_stays():
    order = head_order(2, 6, 4, is_interleaved=True)
    assert order.tolist() == [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]
    assert head_order(2, 6, 4, is_interleaved=False).tolist() == list(range(12))


def test_gate_and_up_take_turns_of_32_and_the_end_is_filled_up():
    order = gate_up_order(48).tolist()
    assert order[:64] == [*range(32), *range(48, 80)]
    assert order[64:] == [*range(32, 48), *[-1] * 16, *range(80, 96), *[-1] * 16]


@EVERY_SET
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_weights_are_rounded_as_torch_rounds_them(instructions, dtype):
    model = small_model().to(dtype)
    weight = model.model.layers[0].self_attn.o_proj.weight.detach().clone()
    weight[3] = 0
    model.model.layers[0].self_attn.o_proj.weight.data = weight
    made = packed(model, 8, instructions).layers[0].attended
    rounded = round_to_8_bits(weight, 127)
    panels = (
        torch.from_numpy(made.weights).view(torch.int8).view(-1, 16, 64, 4)
    )  # panels, steps, columns, inputs of a step
    assert panels.permute(0, 2, 1, 3).reshape(64, 64).equal(rounded.values)
    assert made.scales.equal(rounded.scales)
    sums = rounded.values.sum(1, dtype=torch.int32)
    assert made.first_sums.equal(sums * (-128 if instructions is Instructions.AVX512 else 0))


@pytest.mark.parametrize("sick", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_makes_its_column_not_a_number(sick):
    model = small_model()
    model.model.layers[0].mlp.down_proj.weight.data[5, 7] = sick
    scales = packed(model, 8).layers[0].down.scales
    assert scales.isnan().nonzero().tolist() == [[5]]
