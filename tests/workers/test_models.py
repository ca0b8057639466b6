import os
import subprocess
import sys
from contextlib import closing

import pytest

from contract import ChatMessage, Sampling
from engine.executors.native.huge_pages import HugePages
from tests.engine.native import packed, small_model
from tests.tiny_checkpoints import byte_level_tokenizer, write_checkpoint
from workers.errors import CannotLoad
from workers.models import create_model
from workers.placement import Placement


def create(path, context_tokens=0):
    return create_model(path, "any", Placement(device="cpu", context_tokens=context_tokens, capacity=1))


def said(model):
    tokens = model.generate([ChatMessage("user", "hello")], Sampling())
    return "".join(token.text for token in tokens)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("scripted:hello", "hello"),
        ("scripted:0.001:hello", "hello"),
        ("scripted:", ""),
        ("scripted:note: 7:30", "note: 7:30"),
        ("scripted:0:7:30", "7:30"),
        ("scripted:two\nlines", "two\nlines"),
    ],
)
def test_a_scripted_model_says_its_text(path, text):
    model = create(path)
    assert model.card.name == "any"
    assert said(model) == text


def test_a_scripted_model_has_the_context_that_was_asked_for():
    assert create("scripted:hello", context_tokens=100).card.context_tokens == 100
    assert create("scripted:hello").card.context_tokens > 100


def test_a_folder_that_is_not_there_is_told_by_its_path(tmp_path):
    with pytest.raises(CannotLoad, match=r"no such model: .*/nowhere is not a folder"):
        create(str(tmp_path / "nowhere"))


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(CannotLoad, match=r"holds no config\.json"):
        create(str(tmp_path))


def test_a_file_that_is_missing_is_told_in_one_line(tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CannotLoad, match=r"model\.safetensors is missing"):
        create(str(folder))


@pytest.mark.parametrize("executor", ["native", "torch"])
def test_a_model_answers_from_memory_that_was_asked_for_ahead(tmp_path, monkeypatch, executor):
    if executor == "native":
        packed(small_model())  # skips where there is no native step
    asked = []
    monkeypatch.setattr("workers.models.HugePages", lambda size: asked.append(size) or HugePages(64 << 20))
    small_model(vocab_size=512, max_position_embeddings=512).bfloat16().save_pretrained(tmp_path)
    byte_level_tokenizer().save_pretrained(tmp_path)
    placement = Placement(device="cpu", threads=1, capacity=1, executor=executor)
    with closing(create_model(str(tmp_path), "any", placement)) as model:
        tokens = model.generate([ChatMessage("user", "hello")], Sampling(temperature=0, max_tokens=5))
        assert sum(len(token.ids) for token in tokens) > 0
    assert [size > 0 for size in asked] == [executor == "native"]


def test_a_limit_on_address_space_is_no_reason_not_to_load(tmp_path, monkeypatch):
    def no_room(size=0):
        if size:
            raise OSError("Cannot allocate memory")
        return HugePages()

    monkeypatch.setattr("workers.models.HugePages", no_room)
    monkeypatch.setattr("workers.models.expected_bytes", lambda *_, **__: 1 << 40)
    folder = write_checkpoint(tmp_path / "model")
    with closing(create(str(folder))) as model:
        assert model.card.name == "any"


#: Says how long threads will spin, and whether torch has been imported before that was settled.
SPINNING = """
import os, sys
import LLMapis
from workers.errors import CannotLoad
from workers.models import create_model
from workers.placement import Placement
try:
    create_model("nowhere", "model", Placement())
except CannotLoad:
    print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("said_by_the_user", "rounds"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_wait_briefly_unless_the_user_says_how(said_by_the_user, rounds):
    usual = {name: value for name, value in os.environ.items() if name not in _HOW_TO_WAIT}
    done = subprocess.run(
        [sys.executable, "-c", SPINNING],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=usual | said_by_the_user,
    )
    assert done.stdout.split() == [rounds, "False"]


_HOW_TO_WAIT = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
