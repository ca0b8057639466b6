"""Who computes a checkpoint, and bringing its weights to the native step within the plan."""

import logging

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.checkpoints.checkpoint import open_checkpoint
from engine.executors.native.executor import NativeExecutor
from engine.executors.native.footprint import bytes_of
from engine.loading.load import plan_load
from engine.loading.native import CannotRunNative
from engine.loading.plan import Wish
from tests.engine.native import chunk, packed, small_model, tokens_of
from tests.engine.parts import tiny_model


@pytest.fixture(autouse=True)
def _a_step_to_run_on():
    packed(small_model())  # skips where there is none


def write(path, model, dtype=torch.bfloat16):
    model.to(dtype).save_pretrained(path, max_shard_size="100KB")
    return open_checkpoint(path)


def plan(checkpoint, executor="auto", tier="auto", memory_bytes=None, *, is_cuda=False):
    wish = Wish(tier, 512, False, 1024)
    return plan_load(
        checkpoint, wish, is_cuda=is_cuda, memory_bytes=memory_bytes, capacity=2, executor=executor
    )


@pytest.mark.parametrize("architecture", ["Glm", "Qwen2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tier", ["large", "medium"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_is_packed_within_the_plan_and_computes_what_it_should(
    tmp_path, architecture, dtype, tier, tied
):
    checkpoint = write(tmp_path, small_model(architecture, tie_word_embeddings=tied), dtype)
    planned = plan(checkpoint, tier=tier)
    assert planned.is_native
    _, weights = planned.carry_out_packed()
    assert bytes_of(weights) == planned.memory.weight_bytes
    executor = NativeExecutor(weights, planned.memory.cache_bytes, 1024)
    assert executor.bytes_per_token * planned.memory.cache_tokens <= planned.memory.cache_bytes
    assert executor.cache_blocks * executor.block_tokens == planned.memory.cache_tokens == 1024
    own = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.inference_mode():
        expected = own(torch.tensor([tokens_of(40)])).logits[0]
    logits = executor.run(chunk(tokens_of(40), 0, 40))
    assert (logits - expected).pow(2).mean().sqrt() < 0.06 * expected.std()


@pytest.mark.parametrize(
    ("model", "dtype", "tier", "reason"),
    [
        (tiny_model, torch.bfloat16, "auto", "head_size of 8"),
        (small_model, torch.bfloat16, "small", "tier small is computed by torch"),
        (small_model, torch.float32, "auto", "meant for 32 bits"),
    ],
)
def test_everything_else_runs_on_torch_and_the_log_says_why(tmp_path, caplog, model, dtype, tier, reason):
    caplog.set_level(logging.INFO)
    planned = plan(write(tmp_path, model("Qwen2"), dtype), tier=tier)
    assert not planned.is_native
    assert reason in caplog.text
    planned.carry_out()


def test_torch_can_be_asked_for(tmp_path):
    assert not plan(write(tmp_path, small_model()), "torch").is_native


def test_the_native_step_can_be_asked_for_weights_of_32_bits_too(tmp_path):
    assert plan(write(tmp_path, small_model(), torch.float32), "native").is_native


@pytest.mark.parametrize(("tier", "reason"), [("auto", "head_size of 8"), ("small", "tier small")])
def test_asking_for_the_native_step_where_it_cannot_be_is_an_error(tmp_path, tier, reason):
    model = tiny_model("Qwen2") if tier == "auto" else small_model()
    with pytest.raises(CannotRunNative, match=f"--executor native: .*{reason}"):
        plan(write(tmp_path, model), "native", tier)


def test_a_model_on_a_gpu_does_not_run_on_the_native_step(tmp_path):
    with pytest.raises(CannotRunNative, match="GPU"):
        plan(write(tmp_path, small_model()), "native", is_cuda=True)


def test_where_only_four_bits_fit_torch_computes(tmp_path):
    checkpoint = write(tmp_path, small_model(hidden_size=256, intermediate_size=2048, num_hidden_layers=8))
    large, small = plan(checkpoint), plan(checkpoint, "torch", "small")
    medium = plan(checkpoint, tier="medium").memory
    room = (medium.total_bytes + small.memory.total_bytes) // 2
    planned = plan(checkpoint, memory_bytes=room)
    assert (large.is_native, planned.is_native, planned.memory.tier) == (True, False, "small")
    with pytest.raises(CannotRunNative, match="only tier small fits"):
        plan(checkpoint, "native", memory_bytes=room)


def test_a_step_that_cannot_be_compiled_is_no_failure(tmp_path, monkeypatch, caplog):
    def fail(instructions):
        raise OSError("no such library")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("engine.loading.native.load_library", fail)
    assert not plan(write(tmp_path, small_model())).is_native
    assert "no such library" in caplog.text
