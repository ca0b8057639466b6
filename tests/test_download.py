"""download.py as a program of its own, against hubs on loopback."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.hub.loopback import HuggingFaceHub, ModelScopeHub, Repository

PROGRAM = Path(__file__).resolve().parent.parent / "download.py"

#: Seconds for one run of the program, imports of the hub's library included.
RUN_SECONDS = 60

MEGABYTE = 1024 * 1024

#: More than two of the largest pieces (10 MiB) in which a hub's library writes to disk.
WEIGHTS = bytes(range(256)) * (24 * MEGABYTE // 256)
WEIGHTS_FILE = "model-00001-of-00001.safetensors"
MOST_OF_IT = 22 * MEGABYTE

WANTED = {
    "config.json": b'{"model_type": "glm"}',
    "generation_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"a": 1}',
    "tokenizer.model": b"\x00tokens",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    WEIGHTS_FILE: WEIGHTS,
}
UNWANTED = {
    "README.md": b"# a model",
    "pytorch_model.bin": b"pickle",
    "modeling_chatglm.py": b"import os",
    "tokenization_chatglm.py": b"import os",
    "weights.pt": b"pickle",
    "model.onnx": b"onnx",
    "model.gguf": b"gguf",
    "consolidated.safetensors": b"twice",
    "original/model.safetensors": b"twice",
}
NAME = "zai-org/glm-small"


def repository(**faults):
    return Repository(WANTED | UNWANTED, **faults)


@pytest.fixture(params=[HuggingFaceHub, ModelScopeHub], ids=lambda kind: kind.source)
def hub(request):
    with request.param({NAME: repository()}) as running:
        yield running


@pytest.fixture
def hugging_face():
    with HuggingFaceHub({NAME: repository()}) as running:
        yield running


@pytest.fixture
def into(tmp_path):
    return tmp_path / "models"


def command(hub, into, *arguments):
    return [sys.executable, str(PROGRAM), "--source", hub.source, "--into", str(into), *arguments]


def environment(hub, into):
    home = str(into.parent)
    fast = {"MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1"}
    return {"PATH": os.environ["PATH"], "HOME": home, hub.endpoint_variable: hub.url, **fast}


def download(hub, into, *arguments):
    return subprocess.run(
        command(hub, into, *(arguments or [NAME])),
        env=environment(hub, into),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )


def assert_refused(run, *words):
    """One clear line that holds the words, exit status 1, nothing that looks like a model."""
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("download.py: ")
    assert all(word in line for word in words), line


def assert_whole(folder):
    assert {path.name for path in folder.iterdir()} == WANTED.keys() | {"download.json"}
    for name, content in WANTED.items():
        assert (folder / name).read_bytes() == content, name
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_whole_model_arrives_with_only_the_wanted_files(hub, into):
    run = download(hub, into)
    assert run.returncode == 0, run.stderr
    assert_whole(into / "glm-small")
    assert {path for path, _ in hub.fetched} == WANTED.keys()
    assert run.stdout.splitlines()[-1] == f"Serve it with: python serveapi.py --model {into / 'glm-small'}"


def test_a_cut_connection_goes_on_where_it_was_cut(hub, into):
    hub.repositories[NAME].cut_after[WEIGHTS_FILE] = MOST_OF_IT
    run = download(hub, into)
    assert run.returncode == 0, run.stderr
    assert_whole(into / "glm-small")
    first, second = (start for path, start in hub.fetched if path == WEIGHTS_FILE)
    assert first == 0
    assert 10 * MEGABYTE <= second <= MOST_OF_IT


@contextlib.contextmanager
def stalled_download(hub, into):
    """A run that waits for the rest of the weights, with 20 of their 24 MiB already on disk."""
    hub.repositories[NAME].stall_after[WEIGHTS_FILE] = MOST_OF_IT
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(hub, into, NAME), env=environment(hub, into), **pipes) as running:
        try:
            wait_for_bytes(into / "glm-small.part", WEIGHTS_FILE, 20 * MEGABYTE)
            yield running
        finally:
            running.kill()


def wait_for_bytes(folder, name, size):
    """Wait until another process has written so much of a file, finished or not."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        if any(path.stat().st_size >= size for path in folder.glob(f"{name}*")):
            return
        time.sleep(0.02)
    raise AssertionError(f"{name} did not grow to {size} bytes in {folder}")


def test_after_control_c_the_same_command_goes_on(hub, into):
    with stalled_download(hub, into) as stopped:
        stopped.send_signal(signal.SIGINT)
        _, words = stopped.communicate(timeout=RUN_SECONDS)
    assert stopped.returncode == 130
    assert words.splitlines()[-1].endswith("the same command goes on where this one stopped")
    assert "Traceback" not in words
    assert_goes_on(hub, into)


def test_after_a_sudden_death_the_same_command_goes_on(hub, into):
    with stalled_download(hub, into) as killed:
        killed.kill()
    assert_goes_on(hub, into)


def assert_goes_on(hub, into):
    """The stopped run left nothing that looks whole; the next one fetches only what is missing."""
    assert [path.name for path in into.iterdir()] == ["glm-small.part"]
    hub.fetched.clear()
    run = download(hub, into)
    assert run.returncode == 0, run.stderr
    assert_whole(into / "glm-small")
    ((path, start),) = hub.fetched
    assert path == WEIGHTS_FILE
    assert start >= 20 * MEGABYTE


def test_two_runs_at_once_do_not_spoil_each_other(hub, into):
    with stalled_download(hub, into):
        assert_refused(download(hub, into), "another download.py", "glm-small.part")


def test_a_terminal_shows_a_progress_bar(hub, into):
    terminal, program_end = pty.openpty()
    termios.tcsetwinsize(program_end, (40, 120))
    with subprocess.Popen(
        command(hub, into, NAME), env=environment(hub, into), stderr=program_end, stdout=subprocess.DEVNULL
    ) as running:
        os.close(program_end)
        shown = read_terminal(terminal)
    assert running.returncode == 0
    assert WEIGHTS_FILE in shown
    assert "0%|" in shown


def read_terminal(terminal):
    """Everything until the last program on the terminal ends (Linux says so with EIO)."""
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 4096):
            shown += piece
    os.close(terminal)
    return shown.decode()


def test_a_second_run_does_nothing_and_needs_no_hub(hub, into):
    assert download(hub, into).returncode == 0
    hub.stop()
    again = download(hub, into)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert f"python serveapi.py --model {into / 'glm-small'}" in again.stdout


def test_a_lost_file_is_fetched_again_and_only_that(hub, into):
    assert download(hub, into).returncode == 0
    (into / "glm-small" / "config.json").unlink()
    hub.fetched.clear()
    again = download(hub, into)
    assert again.returncode == 0, again.stderr
    assert hub.fetched == [("config.json", 0)]
    assert_whole(into / "glm-small")


def test_damaged_weights_are_refused_and_a_changed_model_starts_anew(hugging_face, into):
    hugging_face.repositories[NAME].damaged.add(WEIGHTS_FILE)
    assert_refused(download(hugging_face, into), WEIGHTS_FILE, "damaged")
    assert not (into / "glm-small").exists()
    hugging_face.repositories[NAME].damaged.clear()
    hugging_face.fetched.clear()
    assert download(hugging_face, into).returncode == 0
    assert {path for path, _ in hugging_face.fetched} == WANTED.keys()
    assert_whole(into / "glm-small")


def test_an_unknown_model_is_told_in_one_line(hub, into):
    assert_refused(download(hub, into, "zai-org/nothing"), "no model zai-org/nothing")
    assert not into.exists()


def test_a_gated_model_says_how_to_get_in(hub, into):
    hub.repositories[NAME].is_gated = True
    assert_refused(download(hub, into), NAME, "sign in")
    assert not (into / "glm-small").exists()


def test_a_hub_that_is_down_is_told_in_one_line(hub, into):
    hub.stop()
    assert_refused(download(hub, into), "cannot reach")
    assert not into.exists()


def test_a_model_larger_than_the_disk_is_refused_before_the_first_byte(hub, into):
    hub.repositories[NAME].claimed_sizes[WEIGHTS_FILE] = 10**15
    assert_refused(download(hub, into), "no space", "1000000.0 GB")
    assert hub.fetched == []
    assert not (into / "glm-small").exists()


def test_a_model_without_safetensors_is_refused(hub, into):
    hub.repositories["zai-org/old"] = Repository({"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    assert_refused(download(hub, into, "zai-org/old"), "zai-org/old", "safetensors")
    assert not into.exists()


def test_a_revision_is_asked_for_by_name(hub, into):
    hub.revisions.add("v1.0")
    assert download(hub, into, NAME, "--revision", "v1.0").returncode == 0
    assert_whole(into / "glm-small")
    assert_refused(download(hub, into, NAME), "glm-small", "revision v1.0", "--into")
    assert_refused(download(hub, into.parent / "other", NAME, "--revision", "v2"), "revision v2")


@pytest.mark.parametrize("name", ["glm", "a/b/c", "../glm", "zai-org/..", "/etc", "zai-org/", "a b/c", ""])
def test_a_bad_name_is_refused(hugging_face, into, name):
    assert_refused(download(hugging_face, into, name), "owner/name", repr(name))
    assert not into.exists()


def test_a_folder_that_it_did_not_make_is_left_alone(hugging_face, into):
    (into / "glm-small").mkdir(parents=True)
    (into / "glm-small" / "mine.txt").write_text("mine")
    assert_refused(download(hugging_face, into), "not made by download.py")
    assert (into / "glm-small" / "mine.txt").read_text() == "mine"


def test_help_comes_at_once_and_names_the_hubs():
    program = f"import sys, download; download.main({['--help']})"
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        cwd=PROGRAM.parent,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert run.returncode == 0
    assert "huggingface" in run.stdout
    assert "modelscope" in run.stdout
    loaded = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert not loaded & {"huggingface_hub", "modelscope", "modelscope_hub", "torch", "transformers"}
