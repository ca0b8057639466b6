import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.loading.mapped_files import MappedFiles

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what is mapped")


@pytest.fixture
def file(tmp_path):
    weights = {f"w{number}": torch.full((1 << 20,), float(number)) for number in range(3)}
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def mapped_tensor(file, name):
    with safe_open(file, framework="pt", backend="mmap") as stored:
        return stored.get_slice(name)[...]


def resident_file_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssFile"))


def test_only_what_is_mapped_from_the_files_is_held(file):
    tensor = mapped_tensor(file, "w1")
    mapped = MappedFiles([file])
    assert mapped.holds(tensor)
    assert not mapped.holds(tensor.clone())
    assert not MappedFiles([file.with_name("other.safetensors")]).holds(tensor)


def test_pages_that_are_given_back_are_read_again_when_they_are_looked_at(file):
    tensor = mapped_tensor(file, "w2")
    assert tensor.sum() == 2 << 20
    before = resident_file_bytes()
    MappedFiles([file]).give_back(tensor)
    assert before - resident_file_bytes() >= tensor.nbytes - (1 << 20)
    assert tensor.sum() == 2 << 20


def test_memory_that_is_not_mapped_keeps_what_it_holds(file):
    kept = mapped_tensor(file, "w1")
    own = kept.clone()
    MappedFiles([file]).give_back(own)
    assert own.sum() == 1 << 20
