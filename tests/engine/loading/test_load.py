"""A load that is planned from config and file heads, and carried out weight by weight."""

import logging

import psutil
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from engine.checkpoints.checkpoint import open_checkpoint
from engine.executors.linear_4_bit_cpu import Linear4BitOnCpu
from engine.executors.linear_8_bit import Linear8Bit
from engine.executors.native.huge_pages import HugePages
from engine.executors.prepacked import PrepackedLinear, can_prepack
from engine.executors.torch_executor import TorchExecutor
from engine.loading import load
from engine.loading.linears import LEAST_OUTPUTS
from engine.loading.load import compute_dtype, plan_load
from engine.loading.mapped_files import MappedFiles
from engine.loading.plan import BITS, DoesNotFit, Wish
from engine.loading.weights import WeightMover
from tests.engine.parts import ARCHITECTURES, tiny_model
from tests.processes import wait_for

IDS = torch.tensor([[5, 9, 17, 3, 8]])


def write(path, architecture="Qwen2", dtype=torch.float32, *, tie=False, shards=1):
    model = tiny_model(architecture).to(dtype)
    if tie:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    size = sum(weight.nbytes for weight in model.parameters())
    model.save_pretrained(path, max_shard_size=size // shards + 4096)
    return open_checkpoint(path)


def planned(checkpoint, *, tier="auto", memory_bytes=None):
    wish = Wish(tier, 512, False, 1024)
    return plan_load(checkpoint, wish, is_cuda=False, memory_bytes=memory_bytes, capacity=2)


def bytes_of(model):
    """Count the memory behind a model, shared weights once."""
    total = sum(weight.nbytes for weight in model.parameters())
    for module in model.modules():
        if isinstance(module, PrepackedLinear):
            total += module._weight.to_dense().nbytes
        elif isinstance(module, Linear8Bit | Linear4BitOnCpu):
            total += module.weight_bytes
    return total


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_loaded_model_computes_what_transformers_own_loading_gives(tmp_path, architecture, dtype):
    load = planned(write(tmp_path, architecture, dtype, shards=3))
    model = load.carry_out()
    own = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=load.dtype)
    assert {weight.dtype for weight in model.parameters()} == {load.dtype} == {model.config.dtype}
    loose = 0.1 if load.dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(model(IDS).logits, own(IDS).logits, rtol=loose, atol=loose)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tier", BITS)
def test_the_plan_knows_what_the_weights_will_take(tmp_path, architecture, tie, dtype, tier):
    load = planned(write(tmp_path, architecture, dtype, tie=tie), tier=tier)
    assert bytes_of(load.carry_out()) == load.memory.weight_bytes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_plan_knows_what_a_token_takes_in_the_cache(tmp_path, architecture):
    load = planned(write(tmp_path, architecture, torch.bfloat16))
    executor = TorchExecutor(load.carry_out(), load.memory.cache_bytes, 1024)
    assert executor.bytes_per_token * load.memory.cache_tokens <= load.memory.cache_bytes
    assert executor.cache_blocks * executor.block_tokens == load.memory.cache_tokens == 1024


def test_modules_that_share_a_weight_go_on_sharing_it(tmp_path):
    model = planned(write(tmp_path, dtype=torch.float32, tie=True)).carry_out()
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.skipif(not can_prepack(), reason="this processor does not multiply bfloat16 itself")
def test_linear_layers_in_16_bits_are_laid_out_and_the_rest_stays_mapped(tmp_path):
    model = planned(write(tmp_path, dtype=torch.bfloat16, tie=True)).carry_out()
    kinds = {type(module) for module in model.modules() if "Linear" in type(module).__name__}
    assert kinds == {PrepackedLinear}
    assert type(model.model.embed_tokens) is nn.Embedding


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_smaller_tiers_hold_their_bits_and_come_near(tmp_path, dtype):
    checkpoint = write(tmp_path, dtype=dtype)
    exact = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)(IDS).logits
    errors = {}
    for tier, kinds in {"medium": {Linear8Bit}, "small": {Linear8Bit, Linear4BitOnCpu}}.items():
        model = planned(checkpoint, tier=tier).carry_out()
        layers = dict(model.named_modules())
        wide = [layer for layer in layers.values() if getattr(layer, "out_features", 0) >= LEAST_OUTPUTS]
        assert {type(layer) for layer in wide} == kinds
        assert type(layers["lm_head"]) is Linear8Bit
        logits = model(IDS).logits
        errors[tier] = ((logits - exact).norm() / exact.norm()).item()
    assert errors["medium"] < 0.1
    assert errors["medium"] < errors["small"] < 0.5


def test_weights_that_must_stay_exact_do(tmp_path, monkeypatch):
    checkpoint = write(tmp_path, dtype=torch.float32)
    load = planned(checkpoint)
    monkeypatch.setattr(tiny_model("Qwen2").__class__, "_keep_in_fp32_modules_strict", {"input_layernorm"})
    model = checkpoint.map_weights()

    WeightMover(model, load.forms, torch.bfloat16, MappedFiles([])).move(load.devices)
    assert model.model.layers[0].input_layernorm.weight.dtype == torch.float32
    assert model.model.layers[0].post_attention_layernorm.weight.dtype == torch.bfloat16


def test_the_plan_is_one_line_in_the_log(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="engine.loading"):
        planned(write(tmp_path))
    (line,) = caplog.messages
    assert line.startswith("Memory: ")
    assert "of weights (tier large, 16 bit)" in line
    assert "1024 tokens" in line


def test_what_does_not_fit_is_refused_before_a_weight_is_read(tmp_path, monkeypatch):
    checkpoint = write(tmp_path)
    monkeypatch.setattr(type(checkpoint), "map_weights", pytest.fail)
    with pytest.raises(DoesNotFit, match=r"it may take 0\.1 MB"):
        planned(checkpoint, memory_bytes=100_000)


def test_memory_that_was_asked_for_ahead_counts_as_free(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "free_cpu_bytes", lambda: 50_000_000)
    ahead = HugePages(64 << 20)
    wait_for(lambda: ahead.made_bytes == 64 << 20, 20, "the pages")
    checkpoint, wish = write(tmp_path), Wish("auto", 512, False, 1 << 40)
    plans = [
        plan_load(checkpoint, wish, is_cuda=False, memory_bytes=None, capacity=2, ahead=pages)
        for pages in (None, ahead)
    ]
    assert plans[1].memory.cache_bytes > 1.9 * plans[0].memory.cache_bytes
    used = psutil.Process().memory_info().rss
    plans[1].carry_out()  # by torch, which has no need of it
    assert psutil.Process().memory_info().rss < used - (48 << 20)


def test_the_type_on_the_cpu_is_16_bit_only_where_the_processor_multiplies_it():
    has = torch.cpu._is_avx512_bf16_supported()
    assert compute_dtype(torch.bfloat16, is_cuda=False) == (torch.bfloat16 if has else torch.float32)
    assert compute_dtype(torch.float32, is_cuda=False) == torch.float32
    assert compute_dtype(torch.float32, is_cuda=True) == torch.bfloat16
