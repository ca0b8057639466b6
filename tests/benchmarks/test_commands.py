import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.peers import commands
from benchmarks.peers.commands import Job, NotInstalled, chat_body, openai_body, transformers_body
from benchmarks.prompts import PromptMaker
from benchmarks.random_model import TINY, write_model
from benchmarks.running_server import DidNotStart, OwnServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """The folder of peers, in which only what a test puts there is installed."""
    monkeypatch.setattr(commands, "PEERS_FOLDER", tmp_path / "peers")
    return tmp_path / "peers"


def job(model=Path("m")):
    return Job(model, port=1, threads=2, streams=8, context_tokens=256)


@pytest.mark.parametrize("name", commands.PEERS)
def test_a_peer_that_is_not_installed_says_how_it_comes(name, peers):
    with pytest.raises(NotInstalled, match="make peers"):
        commands.PEERS[name](job())


def test_a_peer_s_version_is_that_of_its_environment(peers):
    (peers / "transformers" / "bin").mkdir(parents=True)
    (peers / "transformers" / "bin" / "python").touch()
    (peers / "transformers/lib/python3.11/site-packages/transformers-5.23.0.dist-info").mkdir(parents=True)
    command = commands.PEERS["transformers-batching"](job())
    assert command.version == "5.23.0"
    assert "--continuous-batching" in command.arguments
    assert command.model_name == "m"


def test_everybody_is_asked_for_an_answer_of_full_length_in_words_that_they_know():
    body = chat_body("m", "?", tokens=64)
    assert openai_body(body)["ignore_eos"] is True
    theirs = transformers_body(body)
    assert theirs.keys() - body.keys() == {"generation_config"}
    assert json.loads(theirs["generation_config"])["max_new_tokens"] == 64


def test_the_installer_is_a_shell_script_without_mistakes_of_form():
    script = ROOT / "benchmarks" / "peers" / "install.sh"
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=10)
    assert os.access(script, os.X_OK)


def test_a_server_that_ends_at_once_is_told_with_the_end_of_its_log(tmp_path):
    command = commands.ServerCommand("broken", "0", ("bash", "-c", "echo no such model; exit 3"))
    with pytest.raises(DidNotStart, match="no such model"), OwnServer(command, 1, tmp_path / "log", {}):
        pass


def test_a_random_model_is_written_with_its_tokenizer_and_prompts_have_the_length_asked_for(tmp_path):
    shape = TINY | {"vocab_size": 50_000}
    write_model(tmp_path, ROOT / "models" / "demo", shape)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    maker = PromptMaker(tmp_path)
    contents = [maker.draw(127) for _ in range(5)]
    assert [maker.tokens_of(content) for content in contents] == [127] * 5
    assert len({content.split()[0] for content in contents}) == 5
    with pytest.raises(ValueError, match="template alone"):
        maker.draw(2)


def test_a_shape_too_small_for_the_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ids"):
        write_model(tmp_path, ROOT / "models" / "demo", TINY | {"vocab_size": 100})
