"""The native step's logits against transformers' own, in every form of model that it knows."""

import pytest
import torch

from tests.engine.native import (
    BITS,
    EVERY_SET,
    executor_for,
    expected_logits,
    logits_in_chunks,
    small_model,
    tokens_of,
)
from tests.engine.parts import ARCHITECTURES

#: Root mean square errors of logits, relative to the logits' spread: what rounding to so many bits costs.
TOLERANCE = {16: 0.012, 8: 0.05}

#: By how much the largest logit must lead, relative to the logits' spread, for rounding not to matter.
CLEAR_LEAD = {16: 0.1, 8: 0.25}


def assert_near(logits, expected, bits):
    """The logits are near, and where a token clearly leads it is the same."""
    spread = expected.std()
    assert (logits - expected).pow(2).mean().sqrt() < TOLERANCE[bits] * spread
    best = expected.topk(2, -1).values
    is_clear = best[:, 0] - best[:, 1] > CLEAR_LEAD[bits] * spread
    assert is_clear.any()
    assert torch.equal(logits.argmax(-1)[is_clear], expected.argmax(-1)[is_clear])


def check(model, bits=16, instructions=None, *, length=150):
    tokens = tokens_of(length)
    logits = logits_in_chunks(executor_for(model, bits, instructions), tokens, [17, length - 1, length])
    assert logits.dtype == torch.float32
    assert_near(logits, expected_logits(model, tokens), bits)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@BITS
@EVERY_SET
def test_logits_are_near_transformers_own(architecture, bits, instructions):
    check(small_model(architecture), bits, instructions, length=300)


@EVERY_SET
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 1), (6, 2), (14, 2), (9, 1), (66, 1)])
def test_any_number_of_queries_may_share_a_key(heads, key_heads, instructions):
    check(small_model(num_attention_heads=heads, num_key_value_heads=key_heads), 16, instructions)


@EVERY_SET
@BITS
@pytest.mark.parametrize("head_size", [16, 48, 64, 80, 128, 256])
def test_heads_may_have_any_size_in_sixteens(head_size, bits, instructions):
    check(small_model("Glm", head_dim=head_size), bits, instructions)


@BITS
@pytest.mark.parametrize("sizes", [(16, 16), (48, 48), (80, 320), (128, 1040)])
def test_layers_may_have_any_width_in_sixteens(sizes, bits):
    """Panels of 64 columns need not be full, those of gate and up neither."""
    check(small_model(hidden_size=sizes[0], intermediate_size=sizes[1]), bits)


@BITS
@pytest.mark.parametrize("tied", [True, False])
def test_the_output_layer_may_share_the_embeddings_weight(tied, bits):
    check(small_model("Qwen3", tie_word_embeddings=tied), bits)


@pytest.mark.parametrize("vocabulary", [65, 333])
def test_a_vocabulary_may_have_any_size(vocabulary):
    model = small_model(vocab_size=vocabulary)
    tokens = [token % vocabulary for token in tokens_of(50)]
    logits = executor_for(model)
    assert_near(logits_in_chunks(logits, tokens, [50]), expected_logits(model, tokens), 16)


@BITS
@pytest.mark.parametrize("options", [{"attention_bias": True}, {"mlp_bias": True, "attention_bias": True}])
def test_every_layer_may_have_a_bias(options, bits):
    check(small_model("Llama", **options), bits)


@pytest.mark.parametrize(
    "rotary",
    [
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    ],
    ids=lambda rotary: rotary["rope_type"],
)
def test_rotary_embeddings_may_be_scaled(rotary):
    check(small_model("Llama", rope_parameters=rotary | {"rope_theta": 10_000.0}), length=300)


@pytest.mark.parametrize("part", [0.5, 1.0, 0.25])
@pytest.mark.parametrize("architecture", ["Glm", "Glm4"])
def test_a_part_of_a_head_may_be_turned(architecture, part):
    rotary = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": part}
    check(small_model(architecture, head_dim=32, rope_parameters=rotary))
