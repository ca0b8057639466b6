"""What the executor takes, what it refuses, and how much it holds."""

import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoConfig, AutoModelForCausalLM

from engine.batch import Batch, Span
from engine.executors.torch_executor import TorchExecutor, UnsupportedModel
from tests.engine.parts import VOCABULARY_SIZE, tiny_model

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


@pytest.mark.parametrize(
    ("architecture", "options", "complaint"),
    [
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
            "sliding_window",
        ),
        ("mistral", {"sliding_window": 8}, "sliding_window"),
        ("gemma2", {}, "softcap"),
        ("gpt_oss", {}, "s_aux"),
        ("qwen3_next", {}, "linear_attention"),
        ("lfm2", {"layer_types": ["conv", "full_attention"] * 2}, "conv"),
        ("llama4_text", {}, "chunked_attention"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "attention interface"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(architecture, options, complaint):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **TINY, **options)).eval()
    with pytest.raises(UnsupportedModel, match=complaint):
        TorchExecutor(model, 1 << 22, 256)


@pytest.mark.parametrize("architecture", ["mistral", "olmo2", "smollm3", "gpt_neox"])
def test_further_decoders_need_no_code_of_their_own(architecture):
    options = {"sliding_window": None} if architecture == "mistral" else {}
    torch.manual_seed(2)
    config = AutoConfig.for_model(architecture, **TINY, **options, initializer_range=0.5)
    model = AutoModelForCausalLM.from_config(config).eval().float()
    prompt = list(range(1, 40))
    with torch.inference_mode():
        expected = model(torch.tensor([prompt])).logits[0, -1]
    executor = TorchExecutor(model, 1 << 22, 256, block_tokens=8)
    logits = [executor.run(rows_of(prompt, start, end)) for start, end in [(0, 17), (17, 38), (38, 39)]]
    torch.testing.assert_close(logits[-1][0], expected, rtol=1e-3, atol=1e-3)


def rows_of(tokens, start, end, *, block_tokens=8):
    """One sequence in blocks 0, 1, 2, …"""
    places = list(range(start, end))
    blocks = tuple(range(-(-end // block_tokens)))
    return Batch(tokens[start:end], places, places, [Span(0, end - start, end, blocks)], [end - start - 1])


def test_the_cache_takes_no_more_than_it_may_and_no_more_than_it_needs():
    model = tiny_model("Llama")
    per_token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, head size, bytes of float32
    executor = TorchExecutor(model, 11 * 16 * per_token + 5, most_tokens=10_000)  # one block stays empty
    assert (executor.bytes_per_token, executor.cache_blocks) == (per_token, 10)
    assert TorchExecutor(model, 1 << 40, most_tokens=33).cache_blocks == 3
    with pytest.raises(ValueError, match="no cache block"):
        TorchExecutor(model, 2 * 16 * per_token - 1, most_tokens=100)


def test_logits_come_for_the_rows_that_are_asked_for():
    executor = TorchExecutor(tiny_model("Qwen3"), 1 << 22, 256)
    batch = rows_of([1, 2, 3], 0, 3, block_tokens=16)
    last = executor.run(batch)
    assert (last.shape, last.dtype) == ((1, VOCABULARY_SIZE), torch.float32)
    batch = Batch(batch.tokens, batch.positions, batch.slots, batch.spans, [])
    assert executor.run(batch).shape == (0, VOCABULARY_SIZE)


def test_a_sequence_that_went_wrong_poisons_no_other():
    """Where one wrote what is not a number, also in blocks that another takes over, nobody else reads it."""
    clean, poisoned = (TorchExecutor(tiny_model("Qwen2"), 1 << 22, 256, block_tokens=8) for _ in range(2))
    for cache in poisoned._caches.values():
        written = slice(0, poisoned.cache_blocks * 8)
        cache.keys[written] = cache.values[written] = torch.nan
    prompt = list(range(1, 20))
    for start, end in [(0, 11), (11, 18), (18, 19)]:
        batch = rows_of(prompt, start, end)
        logits = poisoned.run(batch)
        assert torch.equal(logits, clean.run(batch))
        assert logits.isfinite().all()


def test_the_last_block_stays_empty():
    executor = TorchExecutor(tiny_model("Llama"), 1 << 22, 24, block_tokens=8)
    executor.run(rows_of(list(range(1, 25)), 0, 24))
    for cache in executor._caches.values():
        assert len(cache.keys) == len(cache.values) == 32
        assert cache.keys[:24].flatten(1).any(1).all()
        assert not cache.keys[24:].any()
        assert not cache.values[24:].any()


def test_a_model_spread_by_accelerate_is_computed():
    """Its hooks copy every mapping of tensors that a layer is handed: none may be written to."""
    model = tiny_model("Llama")
    batch = rows_of([1, 2, 3], 0, 3)
    expected = TorchExecutor(model, 1 << 22, 256, block_tokens=8).run(batch)
    spread = dispatch_model(tiny_model("Llama"), {"": "cpu"}, main_device="cpu", force_hooks=True)
    torch.testing.assert_close(TorchExecutor(spread, 1 << 22, 256, block_tokens=8).run(batch), expected)
