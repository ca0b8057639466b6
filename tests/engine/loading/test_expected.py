"""Guessing what packed weights will take, from the sizes of files."""

import pytest

from engine.loading import expected
from engine.loading.expected import expected_bytes

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two files of weights, 96 MiB together, on a machine without a GPU that has 1 GiB free."""
    for name, size in [("model-1.safetensors", 64 * MIB), ("model-2.safetensors", 32 * MIB)]:
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    (tmp_path / "tokenizer.json").write_bytes(bytes(MIB))
    monkeypatch.setattr(expected, "GPU_DRIVER", tmp_path / "no such file")
    monkeypatch.setattr(expected, "free_cpu_bytes", lambda: 1024 * MIB)
    return tmp_path


def guess(folder, tier="auto", *, device="auto", executor="auto", memory_bytes=None):
    return expected_bytes(folder, tier, device=device, executor=executor, memory_bytes=memory_bytes)


@pytest.mark.parametrize(("tier", "stored"), [("auto", 96), ("large", 96), ("medium", 48)])
def test_packed_weights_are_a_little_larger_than_stored_ones(folder, tier, stored):
    assert stored * MIB < guess(folder, tier) < stored * MIB * 1.05


@pytest.mark.parametrize(
    "choice", [{"tier": "small"}, {"executor": "torch"}, {"device": "cuda"}, {"memory_bytes": 150 * MIB}]
)
def test_nothing_is_taken_on_a_guess_where_it_may_be_wrong_or_too_much(folder, choice):
    assert guess(folder, **choice) == 0


def test_where_there_is_a_gpu_a_model_that_may_run_there_needs_nothing_here(folder, monkeypatch):
    monkeypatch.setattr(expected, "GPU_DRIVER", folder)
    assert guess(folder) == 0
    assert guess(folder, device="cpu") > 0


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_weights_that_are_meant_for_32_bits_will_be_torchs(folder, name):
    (folder / "config.json").write_text(f'{{"{name}": "float32"}}')
    assert guess(folder) == 0


@pytest.mark.parametrize("config", ["", "[]", '{"dtype": ["float32"]}', '{"dtype": "bfloat16"}'])
def test_a_config_that_says_nothing_of_it_changes_nothing(folder, config):
    (folder / "config.json").write_text(config)
    assert guess(folder) > 0


def test_a_file_that_is_missing_is_left_to_those_who_read_it(folder):
    (folder / "model-2.safetensors").unlink()
    (folder / "model-2.safetensors").symlink_to(folder / "nowhere")
    assert guess(folder) < 70 * MIB


def test_a_machine_that_has_little_free_is_left_alone(folder, monkeypatch):
    monkeypatch.setattr(expected, "free_cpu_bytes", lambda: 150 * MIB)
    assert guess(folder, memory_bytes=1024 * MIB) == 0
