import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from contract import ChatMessage, Sampling
from engine.checkpoints import original
from engine.checkpoints.chatglm import glm_config, weight_shapes
from engine.checkpoints.families import CHATGLM2, CHATGLM3, GLM4, UnsupportedCheckpoint, family_of
from tests.engine.original_checkpoints import (
    PUBLISHED_NAMES,
    TOKENIZER_FOLDERS,
    Reference,
    original_config,
    random_weights,
    write_config,
    write_tokenizer,
    write_traps,
    write_weights,
)
from tests.engine.parts import tiny_model
from tests.vocabularies import folder
from workers.errors import CannotLoad
from workers.local import load_local_model
from workers.placement import Placement

FAMILIES = [CHATGLM2, CHATGLM3, GLM4]

#: Heads of tokenizer.model in the two forms.
RANKS, PIECES = b"IQ== 0\nIg== 1\n", b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02"

#: A first message of "你好" in each family's form, as the published tokenizers encode it.
ROUND_1 = [790, 30951, 517, 30910, 30939, 30996, 13, 13, 54761, 31211]
HELLO = {
    CHATGLM2.name: [64790, 64792, *ROUND_1, 39701, 13, 13, 55437, 31211],
    CHATGLM3.name: [64790, 64792, 64795, 30910, 13, 36474, 54591, 64796],
    GLM4.name: [151331, 151333, 151336, 198, 109377, 151337],
}

PROMPT = [5, 250, 17, 17, 99, 3, 180, 64, 201]


def load(path, config, family):
    return original.load_weights(path, glm_config(config, family), torch.float32)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        (CHATGLM2, {}),
        (CHATGLM2, {"rope_ratio": 4}),
        (CHATGLM3, {}),
        (CHATGLM3, {"rope_ratio": 50}),
        (CHATGLM3, {"add_qkv_bias": False, "multi_query_group_num": 4}),
        (GLM4, {}),
        (GLM4, {"multi_query_group_num": 1, "kv_channels": 16}),
    ],
)
@pytest.mark.parametrize("shards", [1, 3])
def test_logits_are_those_of_the_published_computation(tmp_path, family, changes, shards):
    config = original_config(family, **changes)
    weights = random_weights(config)
    write_config(tmp_path, config)
    write_weights(tmp_path, weights, shards)
    model = load(tmp_path, config, family)
    with torch.inference_mode():
        found = model(torch.tensor([PROMPT])).logits[0]
    torch.testing.assert_close(found, Reference(config, weights, family).logits(PROMPT), atol=1e-4, rtol=1e-4)


def test_weights_of_sixteen_bits_are_loaded_in_the_type_asked_for(tmp_path):
    config = original_config(CHATGLM3)
    weights = {name: weight.half() for name, weight in random_weights(config).items()}
    write_config(tmp_path, config)
    write_weights(tmp_path, weights)
    model = load(tmp_path, config, CHATGLM3)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.inference_mode():
        found = model(torch.tensor([PROMPT])).logits[0]
    torch.testing.assert_close(
        found, Reference(config, weights, CHATGLM3).logits(PROMPT), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_family_says_what_ends_an_answer_whatever_the_files_say(tmp_path, family):
    config = original_config(family)
    write_config(tmp_path, config)
    write_weights(tmp_path, random_weights(config))
    assert load(tmp_path, config, family).generation_config.eos_token_id == list(family.end_ids)


def test_transformers_own_glm_checkpoints_load_as_before(tmp_path):
    config = original_config(CHATGLM3)
    (tmp_path / "original").mkdir()
    write_config(tmp_path / "original", config)
    write_weights(tmp_path / "original", random_weights(config))
    load(tmp_path / "original", config, CHATGLM3)
    native = tiny_model("Glm")
    native.save_pretrained(tmp_path / "native")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "native", dtype=torch.float32)
    for name, weight in native.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_folder_is_served_with_its_own_tokenizer_and_none_of_its_code(tmp_path, family):
    files = folder(TOKENIZER_FOLDERS[family.name])
    checkpoint, mark = tmp_path / "checkpoint", tmp_path / "mark"
    checkpoint.mkdir()
    config = original_config(family, vocabulary=family.first_special + 223, hidden_size=16)
    weights = random_weights(config, silent_from=family.first_special)
    weights = {name: weight.half() for name, weight in weights.items()}
    write_config(checkpoint, config)
    write_weights(checkpoint, weights, shards=2)
    write_tokenizer(checkpoint, files, family)
    write_traps(checkpoint, mark)
    model = load_local_model(checkpoint, "tiny", Placement(device="cpu", context_tokens=128, capacity=2))
    try:
        answer = model.generate([ChatMessage("user", "你好")], Sampling(temperature=0, max_tokens=12))
        found = [id_ for token in answer for id_ in token.ids]
    finally:
        model.close()
    assert found == Reference(config, weights, family).greedy(HELLO[family.name], 12)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rmsnorm": False}, "rmsnorm must be True"),
        ({"post_layer_norm": False}, "post_layer_norm must be True"),
        ({"multi_query_attention": False}, "multi_query_attention must be True"),
        ({"original_rope": False}, "original_rope must be True"),
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm"),
        ({"add_bias_linear": True}, "add_bias_linear must be False"),
        ({"quantization_bit": 4}, "quantization_bit must be 0, it is 4"),
        ({"pre_seq_len": 128}, "pre_seq_len must be None, it is 128"),
        ({"vision_config": {"hidden_size": 9}}, "vision_config must be None"),
        ({"padded_vocab_size": None}, "padded_vocab_size must be a positive integer"),
        ({"num_layers": "2"}, "num_layers must be a positive integer"),
        ({"kv_channels": True}, "kv_channels must be a positive integer"),
        ({"hidden_size": 0}, "hidden_size must be a positive integer"),
        ({"multi_query_group_num": 3}, "multi_query_group_num must divide num_attention_heads"),
        ({"rope_ratio": 0}, "rope_ratio must be a positive number"),
        ({"rope_ratio": "8"}, "rope_ratio must be a positive number"),
        ({"layernorm_epsilon": None}, "layernorm_epsilon must be a positive number"),
    ],
)
def test_a_config_that_glm_does_not_compute_is_refused_by_name(changes, complaint):
    with pytest.raises(UnsupportedCheckpoint, match=complaint) as refusal:
        glm_config(original_config(CHATGLM3, **changes), CHATGLM3)
    assert "\n" not in str(refusal.value)


def test_the_first_chatglm_is_refused():
    config = {"model_type": "chatglm", "num_layers": 28, "inner_hidden_size": 16384, "vocab_size": 130528}
    with pytest.raises(UnsupportedCheckpoint, match="ChatGLM2 or newer"):
        glm_config(config, CHATGLM2)


@pytest.fixture
def checkpoint(tmp_path):
    """A ChatGLM3 checkpoint in two files, but without a tokenizer."""
    config = original_config(CHATGLM3)
    write_config(tmp_path, config)
    write_weights(tmp_path, random_weights(config), shards=2)
    return tmp_path


def refusal(path):
    """Return the line with which the worker refuses the folder."""
    if not (path / "tokenizer.model").exists():
        (path / "tokenizer.model").write_bytes(PIECES)
    with pytest.raises(UnsupportedCheckpoint) as refused:
        original.load_weights(path, original.read_config(path), torch.float32)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def rewrite(checkpoint, change):
    """Write the checkpoint's weights again, changed."""
    weights = random_weights(original_config(CHATGLM3))
    change(weights)
    write_weights(checkpoint, weights, shards=2)


LAYER = "transformer.encoder.layers.1."


def test_a_missing_weight_is_named(checkpoint):
    rewrite(checkpoint, lambda weights: weights.pop(LAYER + "mlp.dense_4h_to_h.weight"))
    assert refusal(checkpoint) == f"1 weights are missing, the first is {LAYER}mlp.dense_4h_to_h.weight"


def test_an_unknown_weight_is_named(checkpoint):
    rewrite(checkpoint, lambda weights: weights.update({"transformer.vision.patch.weight": torch.zeros(2)}))
    assert refusal(checkpoint) == "1 weights are unknown, the first is transformer.vision.patch.weight"


def test_a_weight_of_another_shape_is_named(checkpoint):
    name = LAYER + "self_attention.query_key_value.bias"
    rewrite(checkpoint, lambda weights: weights.update({name: torch.zeros(60)}))
    assert refusal(checkpoint) == f"{name} has the shape [60], config.json asks for [64]"


def test_quantized_weights_are_refused(checkpoint):
    name = LAYER + "mlp.dense_4h_to_h.weight"
    rewrite(checkpoint, lambda weights: weights.update({name: torch.zeros(24, 48, dtype=torch.int8)}))
    assert refusal(checkpoint) == f"{name} is stored as I8: quantized weights"


def test_a_missing_file_is_named(checkpoint):
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    assert refusal(checkpoint) == "model-00002-of-00002.safetensors is missing"


def test_a_file_that_was_cut_off_is_named(checkpoint):
    file = checkpoint / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert refusal(checkpoint).startswith(f"{file.name} is damaged: ")


def test_pickled_weights_are_refused(checkpoint):
    for file in checkpoint.glob("model*"):
        file.unlink()
    (checkpoint / "pytorch_model-00001-of-00007.bin").write_bytes(b"")
    assert refusal(checkpoint).startswith("its weights are in *.bin files")


@pytest.mark.parametrize(
    "index", ["{", "[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../a"}}']
)
def test_a_broken_index_is_refused(checkpoint, index):
    (checkpoint / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refusal(checkpoint)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"added_tokens_decoder": {"x": 1}}', '{"added_tokens_decoder": [1]}']
)
def test_a_broken_tokenizer_config_is_refused(checkpoint, text):
    (checkpoint / "tokenizer.model").write_bytes(PIECES)
    (checkpoint / "tokenizer_config.json").write_text(text)
    with pytest.raises(UnsupportedCheckpoint, match=r"tokenizer_config\.json"):
        original.load_tokenizer(checkpoint)


def test_a_missing_tokenizer_is_one_line_for_the_person_who_serves_the_folder(checkpoint):
    with pytest.raises(CannotLoad) as refused:
        load_local_model(checkpoint, "tiny", Placement(device="cpu", capacity=1))
    assert str(refused.value).startswith(f"cannot load the model in {checkpoint}: ")
    assert str(refused.value).endswith("tokenizer.model is missing")


@pytest.mark.parametrize("text", ["[]", '{"model_type": "glm"}', '"chatglm"'])
def test_other_configs_are_left_to_transformers(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert not original.is_original(tmp_path)


@pytest.mark.parametrize(
    ("head", "tokenizer_config", "names", "family"),
    [
        (RANKS, b"{}", ["thing"], GLM4),
        (PIECES, b"{}", ["THUDM/chatglm2-6b", "chatglm3"], CHATGLM2),
        (PIECES, b"{}", ["thing", "/data/ChatGLM3-6B-32k"], CHATGLM3),
        (PIECES, b'{"chat_template": "<|user|>"}', ["thing", "mine"], CHATGLM3),
        (PIECES, b"{}", ["thing", "chatglm2_tuned"], CHATGLM2),
    ],
)
def test_a_family_is_known_by_its_tokenizer_and_names(head, tokenizer_config, names, family):
    assert family_of(head, tokenizer_config, names) is family


def test_an_unnamed_checkpoint_is_refused_with_advice():
    with pytest.raises(UnsupportedCheckpoint, match="put chatglm2 or chatglm3 into the folder's name"):
        family_of(PIECES, b"{}", ["thing", "mine"])


def test_a_checkpoint_may_be_named_by_its_folder(checkpoint):
    config = original_config(CHATGLM3)
    del config["_name_or_path"]
    write_config(checkpoint, config)
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({}))
    assert "put chatglm2 or chatglm3" in refusal(checkpoint)
    renamed = shutil.move(checkpoint, checkpoint.parent / "chatglm2-tuned")
    assert original.read_config(renamed).eos_token_id == list(CHATGLM2.end_ids)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_published_sizes_make_the_published_number_of_weights(family):
    """ChatGLM2 and ChatGLM3 have 6,243,584,000 parameters, GLM-4 9,399,951,360 (their own index files)."""
    sizes = {"hidden_size": 4096, "ffn_hidden_size": 13696, "kv_channels": 128, "num_attention_heads": 32}
    layers, vocabulary, parameters = (
        (40, 151552, 9_399_951_360) if family is GLM4 else (28, 65024, 6_243_584_000)
    )
    config = glm_config(original_config(family, vocabulary, num_layers=layers, **sizes), family)
    counts = [torch.Size(shape).numel() for shape in weight_shapes(config).values()]
    assert sum(counts) == parameters
    assert PUBLISHED_NAMES[family.name]
