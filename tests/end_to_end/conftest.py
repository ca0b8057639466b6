import shutil
import tempfile
from pathlib import Path

import pytest

from tests.end_to_end.running import Running, Server


def pytest_collection_modifyitems(items):
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)


@pytest.fixture
def folder():
    """Where the programs run and keep their sockets; its path is short, as a socket's has 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="lectern-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def started(folder):
    """What was started; ended by process id after the test, however it went."""
    programs = []
    yield programs
    for program in programs:
        program.end()


@pytest.fixture
def serve(folder, started):
    """Start serveapi.py with these flags; without a model among them, a scripted one."""

    def start(*flags, environ=None):
        if not {"--model", "--upstream", "YUAN_2_URL"} & {*flags, *(environ or ())}:
            flags = ("--model", "scripted:the quick brown fox", *flags)
        # A database of its own: the embedded one belongs to the person who works here.
        flags = flags if "--database" in flags else ("--database", f"sqlite:///{folder}/none.db", *flags)
        started.append(Server(flags, folder, environ or {}))
        return started[-1]

    return start


@pytest.fixture
def run(folder, started):
    """Start a program with these flags."""

    def start(program, *flags, environ=None):
        started.append(Running(program, flags, folder, environ or {}))
        return started[-1]

    return start
