"""Models that the native step computes, and the ways it is asked for logits."""

import os
from copy import deepcopy

import pytest
import torch

from engine.batch import Batch, Span
from engine.executors.native.build import CannotBuild
from engine.executors.native.executor import NativeExecutor
from engine.executors.native.processor import Instructions
from engine.executors.native.weights import pack_model
from tests.engine.parts import ARCHITECTURES, VOCABULARY_SIZE

#: Every set of instructions; tests skip what this processor does not have.
EVERY_SET = pytest.mark.parametrize("instructions", Instructions, ids=lambda one: one.value)
BITS = pytest.mark.parametrize("bits", [16, 8])

BLOCK_TOKENS = NativeExecutor.block_tokens


def small_model(architecture="Qwen2", **options):
    """A model of two layers whose weights 16 bits hold; norms and biases are anything but 1 and 0."""
    make_config, make_model = ARCHITECTURES[architecture]
    sizes = {
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "initializer_range": 0.1,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    torch.manual_seed(5)
    model = make_model(make_config(**sizes | options)).eval().float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.uniform_(0.5, 1.5)
            weight.copy_(weight.bfloat16())
    return model


def packed(model, bits=16, instructions=None):
    """Pack a copy, or skip the test where the processor or a compiler is missing."""
    if instructions is not None and not instructions.is_available:
        pytest.skip(f"this processor has no {instructions.value}")
    try:
        return pack_model(deepcopy(model), bits, instructions=instructions)
    except CannotBuild as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def executor_for(model, bits=16, instructions=None, *, most_tokens=1024):
    return NativeExecutor(packed(model, bits, instructions), 1 << 26, most_tokens)


def tokens_of(count, seed=37):
    return [(place * seed + 11) % (VOCABULARY_SIZE - 1) + 1 for place in range(count)]


def chunk(tokens, start, end):
    """Rows start to end of one sequence in blocks 0, 1, 2, …, logits for all of them."""
    places = list(range(start, end))
    blocks = tuple(range(-(-end // BLOCK_TOKENS)))
    return Batch(tokens[start:end], places, places, [Span(0, end - start, end, blocks)], places_in(places))


def places_in(rows):
    return list(range(len(rows)))


def logits_in_chunks(executor, tokens, ends):
    """Compute a sequence in chunks that end there; return logits of every token."""
    starts = [0, *ends[:-1]]
    return torch.cat([executor.run(chunk(tokens, *bounds)) for bounds in zip(starts, ends, strict=True)])


@torch.inference_mode()
def expected_logits(model, tokens):
    return model(torch.tensor([tokens])).logits[0]
