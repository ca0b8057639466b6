import json

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoints.families import UnsupportedCheckpoint
from engine.checkpoints.stored import stored_dtype, stored_weights, weight_files


def test_names_shapes_and_types_come_from_the_heads_of_the_files(tmp_path):
    save_file({"a": torch.zeros(2, 3, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    (weight,) = stored_weights(tmp_path).items()
    assert (weight[0], weight[1].shape, weight[1].kind) == ("a", (2, 3), "BF16")


def test_the_type_of_most_weights_is_the_files_type(tmp_path):
    weights = {
        "large": torch.zeros(64, dtype=torch.float16),
        "small": torch.zeros(8),
        "table": torch.arange(99),
    }
    save_file(weights, tmp_path / "model.safetensors")
    assert stored_dtype(tmp_path) == torch.float16


def test_files_of_numbers_that_are_no_plain_weights_are_refused(tmp_path):
    save_file({"packed": torch.arange(99)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match="16 or 32 bit"):
        stored_dtype(tmp_path)


def test_the_index_names_the_files_and_each_must_be_there(tmp_path):
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": torch.zeros(1), "c": torch.zeros(1)}, tmp_path / "one.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match=r"two\.safetensors is missing"):
        weight_files(tmp_path)
    save_file({"b": torch.zeros(1)}, tmp_path / "two.safetensors")
    assert [file.name for file in weight_files(tmp_path)] == ["one.safetensors", "two.safetensors"]
    assert set(stored_weights(tmp_path)) == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a\\b"])
def test_an_index_cannot_name_files_elsewhere(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UnsupportedCheckpoint, match="is not what it must be"):
        weight_files(tmp_path)
