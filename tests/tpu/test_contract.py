"""What compiled models promise and what they do not, seen on the simulator without anything of Lectern's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from tests.tpu.bmodels import DYNAMIC_F16, FOUR_BITS, HISTORY, IDS_ONLY, PLAIN, provide
from tests.tpu.by_hand import MASKED

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: Logits of these models have a standard deviation of 4; transformers' are of float32, these of 16 bits.
#: What was seen is at most half of each.
FAR = {"bf16": 1.2, "f16": 0.1}

#: A choice by this much is the same in every format.
MARGIN = 1.2

#: Seconds for a process of its own with a launch or two; 2 were seen.
APART_SECONDS = 120


def distance(logits, wanted):
    return float(numpy.abs(logits - wanted).max())


def test_ids_by_hand_are_those_of_transformers(by_hand, reference):
    prompt, tokens = reference(IDS_ONLY).sure_prompt(length=7, count=3, margin=MARGIN)
    model = by_hand(IDS_ONLY)
    cache = model.cache()
    said = [model.prefill(prompt, cache)[0]]
    for token in tokens[:-1]:
        said.append(model.decode(token, len(prompt) + len(said) - 1, cache)[0])
    assert said == tokens


@pytest.mark.parametrize("recipe", [PLAIN, DYNAMIC_F16, HISTORY], ids=str)
def test_logits_by_hand_are_near_those_of_transformers(by_hand, reference, recipe):
    text = [17, 200, 33, 90, 5, 61, 250, 4]
    model = by_hand(recipe)
    cache = model.cache()
    first = model.prefill(text[:-1], cache)
    second = model.decode(text[-1], len(text) - 1, cache)
    assert distance(first, reference(recipe).logits(text[:-1])) < FAR[recipe.quantize]
    assert distance(second, reference(recipe).logits(text)) < FAR[recipe.quantize]


def test_weights_of_four_bits_run(by_hand, reference):
    prompt = [17, 200, 33, 90, 5, 61, 250]
    model = by_hand(FOUR_BITS)
    wanted = reference(FOUR_BITS).logits(prompt)
    assert numpy.corrcoef(model.prefill(prompt, model.cache()), wanted)[0, 1] > 0.8


def test_prefill_behind_what_is_known_is_as_good_as_at_once(by_hand, reference):
    prompt = numpy.random.default_rng(1).integers(1, 250, 27).tolist()
    model = by_hand(HISTORY)
    cache = model.cache()
    model.prefill(prompt[:16], cache)
    logits = model.prefill_more(prompt[16:], cache, known=16)
    assert distance(logits, reference(HISTORY).logits(prompt)) < FAR["bf16"]


def test_many_texts_share_one_model_each_with_its_own_cache(by_hand):
    model = by_hand(PLAIN)
    texts = ([3, 1, 4, 1, 5, 9], [2, 7, 1, 8])
    alone = [model.prefill(text[:-1], model.cache()) for text in texts]
    caches = [model.cache() for _ in texts]
    together = [model.prefill(text[:-1], cache) for text, cache in zip(texts, caches, strict=True)]
    assert [distance(*pair) for pair in zip(alone, together, strict=True)] == [0, 0]
    mixed = [model.decode(text[-1], len(text) - 1, cache) for text, cache in zip(texts, caches, strict=True)]
    cache = model.cache()
    model.prefill(texts[0][:-1], cache)
    assert distance(mixed[0], model.decode(texts[0][-1], len(texts[0]) - 1, cache)) == 0


def test_a_prefix_is_copied_on_the_device(by_hand):
    model = by_hand(PLAIN)
    text = [3, 1, 4, 1, 5, 9]
    cache, other = model.cache(), model.cache()
    model.prefill(text[:-1], cache)
    for made, kept in zip(cache, other, strict=True):
        model.keep(made, kept, 0, len(text) - 1)
    assert distance(*(model.decode(text[-1], len(text) - 1, one) for one in (cache, other))) == 0


def test_outputs_of_a_dynamic_net_with_memory_for_what_counts_alone_end_the_process():
    ended = run_apart(
        f"""
from sophon import sail
from tests.tpu.by_hand import ByHand
model = ByHand(sail, {str(provide(DYNAMIC_F16).bmodel)!r})
(states,) = model.launch("embedding", model.ids([5] * model.width))
states.reshape([1, 3, 64])
outputs = {{0: model.tensor([1, 3, 64]), 1: model.tensor([1, 3, 2, 16]), 2: model.tensor([1, 3, 2, 16])}}
model.engine.process("block_0", {{0: states, 1: model.ids(range(3))}}, outputs)
"""
    )
    assert ended.returncode == -signal.SIGABRT
    assert "BMRuntime internal error" in ended.stderr


def test_a_history_that_is_not_in_the_nets_own_memory_is_ignored(by_hand, reference, monkeypatch):
    prompt = numpy.random.default_rng(3).integers(1, 250, 20).tolist()
    model = by_hand(HISTORY)
    cache = model.cache()
    model.prefill(prompt[:16], cache)
    monkeypatch.setattr(model, "history", lambda layer, place, known, kept: model.rows(kept[place], known))
    logits = model.prefill_more(prompt[16:], cache, known=16)
    assert distance(logits, reference(HISTORY).logits(prompt)) > 2 * FAR["bf16"]


def test_a_mask_in_the_other_format_is_wrong_in_silence(by_hand, reference, monkeypatch):
    before, text = [90, 33, 61, 7, 5, 17, 200, 8, 99], [3, 1, 4]
    model = by_hand(DYNAMIC_F16)
    cache = model.cache()
    model.prefill(before, cache)
    model.prefill(text[:-1], cache)
    wanted = reference(DYNAMIC_F16).logits(text)
    assert distance(model.decode(text[-1], len(text) - 1, cache), wanted) < FAR["f16"]
    monkeypatch.setattr(model, "masked", MASKED["BM_BFLOAT16"])
    assert distance(model.decode(text[-1], len(text) - 1, cache), wanted) > 2 * FAR["f16"]


def test_a_cache_full_of_garbage_is_not_hidden_by_the_mask(by_hand, reference):
    text = [3, 1, 4]
    model = by_hand(PLAIN)
    shape = model.engine.get_input_shape("block_cache_0", 3)
    cache = [(model.tensor(shape), model.tensor(shape)) for _ in range(model.layers)]
    model.prefill(text[:-1], cache)
    logits = model.decode(text[-1], len(text) - 1, cache)
    assert not distance(logits, reference(PLAIN).logits(text)) < FAR["bf16"]


def test_the_last_row_of_the_context_is_computed(by_hand, reference):
    text = numpy.random.default_rng(2).integers(1, 250, PLAIN.length).tolist()
    model = by_hand(PLAIN)
    cache = model.cache()
    model.prefill(text[:-1], cache)
    logits = model.decode(text[-1], len(text) - 1, cache)
    assert distance(logits, reference(PLAIN).logits(text)) < FAR["bf16"]


def test_tensors_keep_sails_rules(sail):
    handle = sail.Handle(0)
    tensor = sail.Tensor(handle, [2, 3], sail.Dtype.BM_BFLOAT16, False, True)
    with pytest.raises(sail.SailTensorError):
        tensor.update_data(numpy.zeros([3, 2], numpy.uint16))
    with pytest.raises(sail.SailTensorError):
        tensor.update_data(numpy.zeros([2, 3], numpy.float16))
    with pytest.raises(sail.SailTensorError):
        sail.Tensor(tensor, [2, 2], 3)
    with pytest.raises(sail.SailTensorError):
        sail.Tensor(handle, [2, 3], sail.Dtype.BM_BFLOAT16).asnumpy()
    numbers = numpy.arange(6, dtype=numpy.uint16).reshape(2, 3)
    tensor.update_data(numbers)
    assert sail.Tensor(tensor, [2], 3).asnumpy().tolist() == [3, 4]
    other = sail.Tensor(handle, [6], sail.Dtype.BM_BFLOAT16, True, True)
    other.sync_d2d(tensor, 1, 0, 2)
    other.sync_d2s(4)
    assert other.asnumpy()[:2].tolist() == [1, 2]
    with pytest.raises(sail.SailTensorError):
        other.sync_d2d(tensor, 1, 0, 6)


def test_a_nets_own_memory_is_given_by_its_address_mode(by_hand):
    engine = by_hand(PLAIN).engine
    assert (engine.get_addr_mode("block_0"), engine.get_input_tensors("block_0")) == (0, {})
    assert len(engine.get_input_tensors_addrmode0("block_0")) == 3
    assert (engine.get_addr_mode("block_cache_0"), len(engine.get_input_tensors("block_cache_0"))) == (1, 5)


def test_what_cannot_be_loaded_is_refused(sail, tmp_path):
    (tmp_path / "none.bmodel").write_bytes(b"nothing of the kind")
    with pytest.raises(sail.SailEngineError):
        sail.EngineLLM(str(tmp_path / "none.bmodel"), [0])
    with pytest.raises(RuntimeError):
        sail.Handle(1)


def test_the_libraries_print_nothing_on_standard_output():
    path = str(provide(PLAIN).bmodel)
    ended = run_apart(f"from sophon import sail; sail.EngineLLM({path!r}, [0]); print('said')")
    assert (ended.stdout, ended.returncode) == ("said\n", 0)


def run_apart(program):
    """Run Python in a process of its own, with the simulator in reach."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"},
        capture_output=True,
        text=True,
        timeout=APART_SECONDS,
    )
