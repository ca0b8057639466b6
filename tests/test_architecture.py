"""The arrows between the rooms and the owners of libraries, read from the source (nothing is imported)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: room -> the rooms that it may import. An arrow points only up this table, so no cycle can be written.
MAY_IMPORT: dict[str, set[str]] = {
    "contract": set(),
    "settings": {"contract"},
    "grammar": {"contract"},
    "records": {"contract"},
    "templates": {"contract"},
    "bus": {"contract"},
    "engine": {"contract", "grammar"},
    "gateway": {"contract", "bus"},
    "workers": {"contract", "settings", "grammar", "bus", "engine"},
    "LLMkernel": {"contract", "grammar", "records", "templates"},
    "launch": {"contract", "settings"},
    "serveapi": {"contract", "settings", "bus", "gateway", "launch"},
    "LLMapis": {"contract", "settings", "bus", "workers", "LLMkernel", "records", "templates"},
    "download": {"settings"},
    "testpost": set(),
}

#: heavy or foreign library -> the only places that may know it.
OWNERS: dict[str, set[str]] = {
    "flask": {"gateway", "serveapi"},
    "gunicorn": {"gateway", "serveapi"},
    "gevent": {"gateway", "bus", "serveapi"},
    "websockets": {"gateway"},
    "zmq": {"bus"},
    "torch": {"engine", "workers/local"},
    "transformers": {"engine", "workers/local"},
    "accelerate": {"engine", "workers/local"},
    "sentencepiece": {"engine"},
    "tiktoken": {"engine"},
    "sqlalchemy": {"records"},
    "jinja2": {"templates"},
    "requests": {"workers/upstream", "testpost", "download"},
    "llguidance": {"grammar"},
    "sophon": {"engine/executors/sophon"},
}


def source_files() -> list[Path]:
    found: list[Path] = []
    for room in MAY_IMPORT:
        package = ROOT / room
        found += sorted(package.rglob("*.py")) if package.is_dir() else [ROOT / f"{room}.py"]
    return [path for path in found if path.exists()]


def place(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def imported_modules(source: str) -> list[str]:
    """Every module the source imports, also inside functions; a relative import is an error."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write absolute imports"
            names.append(node.module or "")
    return names


def broken_arrows(where: str, source: str) -> list[str]:
    room = where.split("/")[0]
    targets = {name.split(".")[0] for name in imported_modules(source)} & MAY_IMPORT.keys() - {room}
    return [f"{room} must not know {target}" for target in sorted(targets - MAY_IMPORT[room])]


def strangers(where: str, source: str) -> list[str]:
    used = {name.split(".")[0] for name in imported_modules(source)} & OWNERS.keys()
    return [
        f"{library} does not belong in {where}"
        for library in sorted(used)
        if not any(f"{where}/".startswith(f"{owner}/") for owner in OWNERS[library])
    ]


@pytest.mark.parametrize("path", source_files(), ids=place)
def test_imports_follow_the_arrows(path):
    assert broken_arrows(place(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", source_files(), ids=place)
def test_libraries_stay_with_their_owners(path):
    assert strangers(place(path), path.read_text(encoding="utf-8")) == []


def test_every_room_of_the_table_exists():
    places = {place(path).split("/")[0] for path in source_files()}
    assert places == MAY_IMPORT.keys()


def test_arrows_only_point_up_the_table():
    order = list(MAY_IMPORT)
    for room, targets in MAY_IMPORT.items():
        assert all(order.index(target) < order.index(room) for target in targets), room


@pytest.mark.parametrize(
    ("where", "source", "complaint"),
    [
        ("gateway/routes", "from engine.sampler import choose", "gateway must not know engine"),
        ("LLMkernel", "def chat():\n    import workers", "LLMkernel must not know workers"),
        ("contract/task", "import settings", "contract must not know settings"),
    ],
)
def test_a_planted_arrow_is_caught(where, source, complaint):
    assert broken_arrows(where, source) == [complaint]


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("gateway/routes", "import torch"),
        ("LLMkernel", "from zmq import green"),
        ("bus/wire", "import flask"),
    ],
)
def test_a_planted_library_is_caught(where, source):
    assert len(strangers(where, source)) == 1


def test_a_relative_import_is_caught():
    with pytest.raises(AssertionError, match="absolute"):
        imported_modules("from . import wire")
