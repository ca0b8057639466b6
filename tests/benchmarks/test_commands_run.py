"""The two commands as a person types them, with tiny numbers on the embedded model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.running import Server

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "demo"

#: Seconds of a whole run: two servers start, and a few short answers are made.
RUN_SECONDS = 100

pytestmark = pytest.mark.end_to_end


def run(module, *arguments, expected=0):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, env={**os.environ}
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done


@pytest.fixture
def peer(tmp_path_factory):
    """Another Lectern, for want of anything else that is always there."""
    folder = tmp_path_factory.mktemp("peer")
    server = Server(["--model", str(MODEL), "--database", f"sqlite:///{folder}/none.db"], folder, {})
    try:
        yield server.wait_ready()
    finally:
        server.end()


def test_serve_measures_against_a_url_and_writes_what_it_found(peer, tmp_path):
    numbers = ("--concurrency", "1,2", "--rounds", 1, "--prompt-tokens", 40, "--answer-tokens", 4)
    output = tmp_path / "serve.json"
    done = run(
        "benchmarks.serve", "--peer", peer.url, "--model", MODEL, *numbers, "--threads", 1, "--output", output
    )
    assert "2 at once, tokens per second" in done.stdout
    report = json.loads(output.read_text())
    assert report["servers"]["lectern"]["peak_mib"] > 50
    assert report["servers"]["lectern"]["start_seconds"] > 0
    for level in report["concurrency"].values():
        for side in ("lectern", "peer"):
            assert (level[side]["prompt_tokens"], level[side]["answer_tokens"]) == ([40], [4])
            assert level[side]["tokens_per_second"] > 0
    assert report["ratios"]["2"]["tokens_per_second"] > 0
    assert report["machine"]["cores"] >= 1
    assert "benchmarks.serve" in report["command"]


def test_tasks_measures_steps_and_seconds_of_the_book_task(tmp_path):
    output = tmp_path / "tasks.json"
    numbers = ("--rows", 25, "--at-once", "1,2", "--rounds", 1, "--threads", 1)
    run("benchmarks.tasks", "--model", MODEL, *numbers, "--output", output)
    entries = json.loads(output.read_text())["entries"]
    assert len(entries) == 2 * 2 * 3
    assert not [entry for entry in entries if "failed" in entry]
    for entry in entries:
        if entry["who"] != "lectern schema":
            assert entry["steps"] <= entry["plain_steps"] / 3
        if entry["prefix"] == "warm":
            assert entry["cached_tokens"] > entry["prompt_tokens"] / 2


@pytest.mark.parametrize(
    ("peer_name", "status", "words"),
    [("nobody", 2, "--peer must be"), ("http://127.0.0.1:9", 1, "serve:")],
)
def test_a_peer_that_is_not_there_is_said_in_one_line(peer_name, status, words, tmp_path):
    numbers = ("--concurrency", "1", "--output", tmp_path / "x.json")
    done = run("benchmarks.serve", "--peer", peer_name, "--model", MODEL, *numbers, expected=status)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
