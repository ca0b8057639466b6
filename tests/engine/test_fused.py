"""What runs as fewer kernels gives what the model's own code gives, or is left alone."""

import logging
from random import Random

import pytest
import torch
from torch import nn
from transformers import AttentionInterface

from engine.executors.fused import FusedNorm, compile_layers, fuse_norms
from engine.executors.torch_executor import ATTENTION, TorchExecutor
from tests.engine.paged import Steps
from tests.engine.parts import ARCHITECTURES, VOCABULARY_SIZE, tiny_model


def logits_of(executor):
    steps = Steps(Random(1), executor.block_tokens).add((1, 9, 30), VOCABULARY_SIZE)
    return torch.cat([executor.run(batch) for batch in steps])


@pytest.fixture
def attention_as_it_was():
    attend = AttentionInterface()[ATTENTION]
    yield
    AttentionInterface.register(ATTENTION, attend)
    torch._dynamo.reset()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fused_norms_give_the_same(architecture):
    model = tiny_model(architecture)
    for name, weight in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(weight, 0.5, 1.5)
    expected = logits_of(TorchExecutor(model, 1 << 24, 256))
    norms = sum(type(module).__name__.endswith("RMSNorm") for module in model.modules())
    assert fuse_norms(model) == norms > 0
    assert not any(type(module).__name__.endswith("RMSNorm") for module in model.modules())
    torch.testing.assert_close(logits_of(TorchExecutor(model, 1 << 24, 256)), expected, rtol=1e-3, atol=1e-3)


def test_16_bit_norms_are_fused():
    model = tiny_model("Qwen3").bfloat16()
    assert fuse_norms(model) > 0
    assert isinstance(model.model.norm, FusedNorm)


class OddRMSNorm(nn.Module):
    """A norm like Gemma's: its weight is what is added to one."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((8,), 0.5))
        self.variance_epsilon = 1e-6

    def forward(self, hidden):
        return (1 + self.weight) * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6)


def test_a_norm_that_does_something_else_is_left_alone():
    model = nn.Sequential(OddRMSNorm(), nn.LayerNorm(8))
    assert fuse_norms(model) == 0
    assert isinstance(model[0], OddRMSNorm)


@pytest.mark.usefixtures("attention_as_it_was")
def test_compiled_layers_give_the_same_and_are_compiled_once_for_all_sizes():
    model = tiny_model("Glm")
    executor = TorchExecutor(model, 1 << 24, 256)
    expected = logits_of(executor)
    compiled = []

    def compiler(graph, inputs):
        compiled.append(graph)
        return graph.forward

    assert compile_layers(model, lambda: logits_of(executor), backend=compiler)
    frames = len(compiled)
    assert frames > 0
    torch.testing.assert_close(logits_of(executor), expected, rtol=1e-3, atol=1e-3)
    assert len(compiled) == frames


@pytest.mark.usefixtures("attention_as_it_was")
def test_layers_that_cannot_be_compiled_run_as_they_are(caplog):
    def broken(graph, inputs):
        raise OSError("there is no C compiler")

    model = tiny_model("Llama")
    executor = TorchExecutor(model, 1 << 24, 256)
    expected = logits_of(executor)
    with caplog.at_level(logging.ERROR):
        assert not compile_layers(model, lambda: logits_of(executor), backend=broken)
    assert "cannot be compiled" in caplog.text
    torch.testing.assert_close(logits_of(executor), expected)
