"""What a busy neighbour does to a step, by how long threads spin: `python -m benchmarks.neighbours --help`.

Every round takes each number of spinning rounds, each with and without a neighbour: a program that only
counts, in a session of its own, as whatever else runs on a machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import RESULTS, circumstances, write_report
from engine.waiting_threads import SPIN_ROUNDS, VARIABLE

#: What GNU's OpenMP spins by itself, ours, and some others.
SPINS = (300_000, SPIN_ROUNDS, 1_000)

#: Sequences of the steps that are measured, 192 tokens each.
SEQUENCES = (1, 8, 32)
CONTEXT_TOKENS = 192

#: Seconds for which steps of a size are taken.
STEP_SECONDS = 2.0

#: Seconds for a process that measures.
PROCESS_SECONDS = 300


@contextmanager
def neighbour(count: int) -> Iterator[None]:
    """Keep so many processors busy."""
    counting = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(counting, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def time_steps(model: Path, executor: str) -> list[float]:
    """Return the median milliseconds of steps of each size; runs in a process of its own."""
    from benchmarks.native_step import load
    from benchmarks.step import step_of

    loaded, _ = load(model, "large", executor)
    medians = []
    for sequences in SEQUENCES:
        batch = step_of(sequences, 1, CONTEXT_TOKENS, loaded.block_tokens)
        loaded.run(batch)
        seconds: list[float] = []
        deadline = time.perf_counter() + STEP_SECONDS
        while time.perf_counter() < deadline or len(seconds) < 3:
            began = time.perf_counter()
            loaded.run(batch)
            seconds.append(time.perf_counter() - began)
        medians.append(1000 * statistics.median(seconds))
    return medians


def measured_apart(model: Path, executor: str, spin: int) -> list[float]:
    """Return what a new process measures whose threads spin so many rounds."""
    command = [sys.executable, "-m", "benchmarks.neighbours", "--model", str(model), "--executor", executor]
    environment = {**os.environ, VARIABLE: str(spin)}
    done = subprocess.run(
        [*command, "--alone"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS,
        check=True,
    )
    return [float(word) for word in done.stdout.split()]


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--executor", choices=("native", "torch"), default="native")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--neighbours", type=int, default=1, help="busy programs")
    parser.add_argument("--alone", action="store_true", help="only take steps, and print milliseconds")
    options = parser.parse_args()
    if options.alone:
        print(*time_steps(options.model, options.executor))
        return 0
    found: dict[tuple[int, int], list[list[float]]] = {}
    for _ in range(options.rounds):
        for spin in SPINS:
            for count in (0, options.neighbours):
                with neighbour(count):
                    found.setdefault((spin, count), []).append(
                        measured_apart(options.model, options.executor, spin)
                    )
    entries = []
    for (spin, count), rounds in found.items():
        medians = [round(statistics.median(each), 1) for each in zip(*rounds, strict=True)]
        entries.append({"spin_rounds": spin, "neighbours": count, "milliseconds": medians})
        print(f"spinning {spin}, {count} neighbours: {dict(zip(SEQUENCES, medians, strict=True))} ms")
    output = RESULTS / f"neighbours_{options.executor}.json"
    write_report(output, circumstances() | {"sequences": SEQUENCES, "entries": entries})
    return 0


if __name__ == "__main__":
    sys.exit(main())
