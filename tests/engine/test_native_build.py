"""Compiling the native step: once, for these sources, and with a clear word where it cannot be."""

import stat
from pathlib import Path

import pytest
import torch

from engine.executors.native import build as building
from engine.executors.native.build import CannotBuild, build, library_path
from engine.executors.native.processor import Instructions, best_instructions
from tests.engine.native import EVERY_SET, packed, small_model


def compiler(folder, body):
    """Put a compiler into the folder that does what the shell script says; return the folder's name."""
    script = folder / building.COMPILER
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(folder)


#: Writes a library of no use to where it is told to: the last argument.
WRITES = 'for last; do :; done; echo library > "$last"'


def test_it_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{compiler(tmp_path, WRITES)}:/bin:/usr/bin")
    path = build(Instructions.AVX2, tmp_path / "made")
    assert path.read_text() == "library\n"
    monkeypatch.setenv("PATH", compiler(tmp_path, "exit 1"))
    assert build(Instructions.AVX2, tmp_path / "made") == path
    assert list(path.parent.iterdir()) == [path]


def test_each_set_of_instructions_and_each_source_has_a_library_of_its_own(tmp_path, monkeypatch):
    names = {library_path(one, tmp_path) for one in Instructions}
    monkeypatch.setattr(building, "SOURCES", tmp_path)
    (tmp_path / "native.cpp").write_text("int changed;")
    assert len(names | {library_path(one, tmp_path) for one in Instructions}) == 4


def test_libraries_of_earlier_sources_are_removed_and_those_of_other_instructions_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{compiler(tmp_path, WRITES)}:/bin:/usr/bin")
    folder = tmp_path / "made"
    other = build(Instructions.AVX512, folder)
    with monkeypatch.context() as earlier:
        earlier.setattr(building, "SOURCES", tmp_path)
        build(Instructions.AVX2, folder)
    path = build(Instructions.AVX2, folder)
    assert sorted(folder.iterdir()) == sorted([other, path])


def test_no_compiler_is_said_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match=r"no C\+\+ compiler \(g\+\+\) was found"):
        build(Instructions.AVX2, tmp_path)


def test_a_compilers_failure_is_said_in_a_line_and_leaves_nothing(tmp_path, monkeypatch):
    body = 'echo "native.cpp:3: error: what is this" >&2; ' + WRITES + "; exit 1"
    monkeypatch.setenv("PATH", f"{compiler(tmp_path, body)}:/bin:/usr/bin")
    with pytest.raises(CannotBuild, match=r"g\+\+ failed: native.cpp:3: error: what is this"):
        build(Instructions.AVX2, tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{compiler(tmp_path, WRITES)}:/bin:/usr/bin")
    (tmp_path / "file").touch()
    with pytest.raises(CannotBuild, match="cannot write"):
        build(Instructions.AVX2, tmp_path / "file" / "made")


def test_the_best_instructions_are_the_first_that_the_processor_has(monkeypatch):
    has = dict.fromkeys(("avx2", "fma3", "avx512_f", "avx512_bw", "avx512_vl", "avx512_dq"), True)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: has)
    assert best_instructions() is Instructions.AVX2
    has |= {"avx512_bf16": True, "avx512_vnni": True}
    assert best_instructions() is Instructions.AVX512
    has["fma3"] = False
    assert best_instructions() is None


@EVERY_SET
def test_one_pool_of_threads_serves_the_step_and_torch(instructions):
    packed(small_model(), 16, instructions)  # loads the library, or skips
    mapped = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines()}
    pools = {path for path in mapped if path.name.startswith("libgomp.so")}  # others have names of their own
    assert pools == {(Path(torch.__file__).parent / "lib" / "libgomp.so.1").resolve()}


def test_setting_up_compiles_for_this_processor(tmp_path, caplog):
    packed(small_model())  # skips where there is no step
    with caplog.at_level("INFO"):
        assert building.main(tmp_path) == 0
    assert "Compiled the native step" in caplog.text
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]
