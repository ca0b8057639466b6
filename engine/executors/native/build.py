"""Compiles the step when it is not there yet: `python -m engine.executors.native.build`.

A library's name holds a hash of its sources and of what it was compiled with, so that a changed source
is compiled anew and an old library is never taken for a new one.
"""

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from engine.executors.native.processor import LACKS_INSTRUCTIONS, Instructions, best_instructions

logger = logging.getLogger(__name__)

#: Where the C++ lies.
SOURCES = Path(__file__).parent / "sources"

#: Where libraries are kept: with what else the project makes for itself.
BUILD_FOLDER = Path(__file__).parents[3] / "var" / "native"

#: The compiler. Only GCC: the step shares torch's thread pool, which is GCC's libgomp.
COMPILER = "g++"

#: Seconds that it may take; it needs about two.
COMPILING_SECONDS = 120

#: gcc 12's own headers of vector instructions raise false alarms about what is not initialized. Products
#: and sums are only contracted where the source says so, so that every way to a result is the same way.
FLAGS = (
    *("-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
    *("-ffp-contract=off", "-fPIC", "-shared", "-fopenmp", "-fvisibility=hidden"),
)


class CannotBuild(Exception):
    """The step cannot be compiled here; the message says why in one line."""


def library_path(instructions: Instructions, folder: Path = BUILD_FOLDER) -> Path:
    """Return where the library for these instructions lies or will lie."""
    digest = hashlib.sha256(" ".join(_arguments(instructions)).encode())
    for source in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return folder / f"step-{instructions.value}-{digest.hexdigest()[:16]}.so"


def build(instructions: Instructions, folder: Path = BUILD_FOLDER) -> Path:
    """Return the library's path, having compiled it if it was not there. Raises CannotBuild."""
    path = library_path(instructions, folder)
    if path.exists():
        return path
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise CannotBuild(f"no C++ compiler ({COMPILER}) was found; models run without the native step")
    began = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            made = Path(unfinished) / path.name
            _compile([compiler, *_arguments(instructions), str(SOURCES / "native.cpp"), "-o", str(made)])
            made.replace(path)  # at once: other processes may be looking for it
        _remove_older(path)
    except OSError as error:
        raise CannotBuild(f"cannot write {path}: {error.strerror}") from error
    logger.info("Compiled the native step (%s) in %.1f s", instructions.value, time.monotonic() - began)
    return path


def _remove_older(path: Path) -> None:
    """Remove what was compiled from earlier sources; a process that has loaded it keeps it."""
    for other in path.parent.glob(f"{path.stem.rpartition('-')[0]}-*.so"):
        if other != path:
            other.unlink(missing_ok=True)


def _arguments(instructions: Instructions) -> list[str]:
    """All of the command but its files; libgomp is torch's own, which is loaded already."""
    return [*FLAGS, *instructions.compiler_flags, f"-Wl,-rpath,{Path(torch.__file__).parent / 'lib'}"]


def _compile(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILING_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CannotBuild(f"{COMPILER} took longer than {COMPILING_SECONDS} s") from error
    if done.returncode:
        logger.debug("%s", done.stderr)
        first = next((line for line in done.stderr.splitlines() if "error" in line), "no reason given")
        raise CannotBuild(f"{COMPILER} failed: {first}")


def main(folder: Path = BUILD_FOLDER) -> int:
    """Compile for this processor; what cannot be is told, and no failure: torch computes as well."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    instructions = best_instructions()
    if instructions is None:
        logger.info("No native step: this processor %s", LACKS_INSTRUCTIONS)
        return 0
    try:
        build(instructions, folder)
    except CannotBuild as error:
        logger.warning("No native step: %s", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
