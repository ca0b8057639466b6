import pytest
import torch

from engine.executors.prepacked import PrepackedLinear, can_prepack, prepack
from tests.engine.parts import tiny_model

pytestmark = pytest.mark.skipif(not can_prepack(), reason="this processor does not multiply bfloat16 itself")


@pytest.mark.parametrize("rows", [1, 2, 7, 33, 130])
@pytest.mark.parametrize("bias", [True, False])
def test_a_prepacked_layer_computes_what_the_layer_computes(rows, bias):
    torch.manual_seed(rows)
    linear = torch.nn.Linear(96, 160, bias=bias).bfloat16()
    states = torch.randn(1, rows, 96).bfloat16()
    packed = PrepackedLinear(linear)(states)
    assert packed.shape == (1, rows, 160)
    torch.testing.assert_close(packed, linear(states), rtol=2**-7, atol=2**-7)


def test_a_row_does_not_depend_on_its_neighbours():
    layer = PrepackedLinear(torch.nn.Linear(96, 160).bfloat16())
    states = torch.randn(33, 96).bfloat16()
    alone = torch.cat([layer(row[None]) for row in states])
    torch.testing.assert_close(layer(states), alone, rtol=2**-7, atol=2**-7)


def test_only_16_bit_layers_are_replaced():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8).bfloat16(), torch.nn.Linear(8, 8))
    prepack(model)
    assert isinstance(model[0], PrepackedLinear)
    assert type(model[1]) is torch.nn.Linear


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["Glm", "Qwen2"])
def test_a_prepacked_model_gives_the_same_logits(architecture):
    model = tiny_model(architecture).bfloat16()
    ids = torch.tensor([[5, 9, 17, 3, 8]])
    expected = model(ids).logits
    prepack(model)
    assert any(isinstance(module, PrepackedLinear) for module in model.modules())
    torch.testing.assert_close(model(ids).logits, expected, rtol=2**-6, atol=2**-6)
