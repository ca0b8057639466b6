"""Runs the native step under the address and undefined-behaviour sanitizers: `make test-native-sanitized`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.executors.native.build import COMPILER, SOURCES
from engine.executors.native.processor import Instructions

#: The program that computes with it and says what is wrong.
PROGRAM = Path(__file__).resolve().parents[1] / "tests" / "engine" / "native_step" / "test_step.cpp"

#: Slow enough to check every access, quick enough to be waited for.
FLAGS = (
    *("-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-fopenmp", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)

#: Seconds for compiling it, or for running it.
LIMIT_SECONDS = 300


def main() -> int:
    """Compile and run for every set of instructions that this processor has; 0 if all of them passed."""
    compiler = shutil.which(COMPILER)
    if compiler is None:
        print(f"{COMPILER} was not found", file=sys.stderr)
        return 1
    passed = [_passes(compiler, one) for one in Instructions if one.is_available]
    if not passed:
        print("this processor has neither of the sets of instructions", file=sys.stderr)
    return 0 if passed and all(passed) else 1


def _passes(compiler: str, instructions: Instructions) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "test_step"
        sources = [str(SOURCES / "native.cpp"), str(PROGRAM)]
        command = [compiler, *FLAGS, *instructions.compiler_flags, f"-I{SOURCES}", *sources]
        subprocess.run([*command, "-o", str(program)], check=True, timeout=LIMIT_SECONDS)
        print(f"{instructions.value}: ", end="", flush=True)
        return subprocess.run([str(program)], check=False, timeout=LIMIT_SECONDS).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
