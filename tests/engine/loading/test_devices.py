import pytest
import torch

from engine.loading.devices import DeviceMap, spread_over_gpus
from engine.loading.linears import LinearForms
from engine.loading.plan import DoesNotFit
from tests.engine.parts import tiny_model

FORMS = LinearForms(16, torch.bfloat16, is_cuda=True)
FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


def spread(*room_bytes):
    return spread_over_gpus(tiny_model("Qwen2").to("meta"), FORMS, torch.bfloat16, room_bytes)


def test_a_module_is_where_the_nearest_part_that_contains_it_is():
    devices = DeviceMap({"model.embed_tokens": FIRST, "model.layers.1": SECOND, "model": FIRST})
    assert devices("model.layers.1.mlp.up_proj") == SECOND
    assert devices("model.layers.10.mlp") == FIRST
    assert devices("model.norm") == FIRST
    assert DeviceMap({"": SECOND})("lm_head") == SECOND


def test_one_gpu_takes_everything():
    assert spread(1)("model.layers.0") == FIRST


def test_two_gpus_share_whole_layers():
    devices = spread(10**6, 10**6)
    assert devices("model.embed_tokens") == FIRST
    assert devices("lm_head") == SECOND
    parts = [devices(f"model.layers.1.{part}") for part in ("self_attn.q_proj", "mlp.down_proj")]
    assert parts[0] == parts[1]


def test_gpus_without_room_for_a_layer_are_refused():
    with pytest.raises(DoesNotFit, match="no room"):
        spread(1000, 1000)
