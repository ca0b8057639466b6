"""Every program in examples/ runs, each as it stands, against one real server."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from records import embedded
from tests.end_to_end.running import ROOT, Server

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

#: Those that load a model themselves instead of asking a server.
WITHOUT_A_SERVER = {"terminal_sessions.py"}

#: Seconds for one example.
EXAMPLE_SECONDS = 90

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def server():
    """The embedded model and its catalogue, for all of these tests: none of them changes anything."""
    folder = Path(tempfile.mkdtemp(prefix="lectern-"))
    embedded.ensure(folder / "books.db")
    flags = ("--model", str(ROOT / "models" / "demo"), "--database", f"sqlite:///{folder}/books.db")
    running = Server(flags, folder, {})
    try:
        yield running.wait_ready()
    finally:
        running.end()
        shutil.rmtree(folder)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_shows_something(example, server, tmp_path):
    arguments = [] if example.name in WITHOUT_A_SERVER else [server.url]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example), *arguments],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{server.output}"
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()
    assert "error" not in done.stdout.lower()


def test_the_examples_are_those_that_the_documents_speak_of():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert {path.name for path in EXAMPLES if f"examples/{path.name}" not in pages} == set()
