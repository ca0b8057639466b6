"""The native step beside the torch executor, without a server: `python -m benchmarks.native_step --help`.

Both are loaded as a worker loads them, and their steps are taken by turns: what a machine does to one
of them for a while, it does to the other as well. What counts are the ratios.
"""

import argparse
import gc
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.report import RESULTS, circumstances, write_report
from benchmarks.step import step_of
from engine.batch import Batch, Executor
from engine.checkpoints.checkpoint import open_checkpoint
from engine.executors.native.executor import NativeExecutor
from engine.executors.native.processor import best_instructions
from engine.executors.torch_executor import TorchExecutor
from engine.loading.load import plan_load
from engine.loading.plan import Tier, Wish

#: The bits of the weights, by tier.
TIERS: dict[Tier, int] = {"large": 16, "medium": 8}

#: Seconds that a case is measured, after a step of each that does not count.
CASE_SECONDS = 4.0

#: Fewest steps of each executor.
LEAST_STEPS = 3


class Case(NamedTuple):
    """A step: so many sequences, of each the last `rows` of `context` tokens."""

    name: str
    sequences: int
    rows: int
    context: int


CASES = (
    Case("decode, 1 stream", 1, 1, 192),
    Case("4 rows of one stream", 1, 4, 192),
    Case("decode, 8 streams", 8, 1, 192),
    Case("decode, 32 streams", 32, 1, 192),
    Case("prefill of 512", 1, 512, 512),
    Case("512 rows at 4352, the mean of a prompt of 8192", 1, 512, 4352),
    Case("512 rows at 8192", 1, 512, 8192),
)

#: Tokens that the caches hold.
CACHE_TOKENS = max(case.sequences * case.context for case in CASES) + 1024


def load(path: Path, tier: Tier, choice: Any) -> tuple[Executor, float]:
    """Return the executor and the seconds that loading took."""
    began = time.perf_counter()
    wish = Wish(tier, CACHE_TOKENS, True, CACHE_TOKENS)
    planned = plan_load(
        open_checkpoint(path), wish, is_cuda=False, memory_bytes=None, capacity=32, executor=choice
    )
    cache_bytes = planned.memory.cache_bytes
    executor: Executor
    if planned.is_native:
        executor = NativeExecutor(planned.carry_out_packed()[1], cache_bytes, CACHE_TOKENS)
    else:
        executor = TorchExecutor(planned.carry_out(), cache_bytes, CACHE_TOKENS)
    return executor, time.perf_counter() - began


def measure(case: Case, executors: dict[str, Executor]) -> dict[str, Any]:
    """Take steps by turns; return medians in milliseconds, tokens a second, and the ratio."""
    steps: dict[str, Callable[[], object]] = {
        name: _step(executor, step_of(case.sequences, case.rows, case.context, executor.block_tokens))
        for name, executor in executors.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    deadline = time.perf_counter() + CASE_SECONDS
    while time.perf_counter() < deadline or len(seconds["torch"]) < LEAST_STEPS:
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    tokens = case.sequences * case.rows
    return {
        "case": case.name,
        "milliseconds": {name: round(1000 * each, 2) for name, each in medians.items()},
        "tokens_per_second": {name: round(tokens / each, 1) for name, each in medians.items()},
        "native_times_torch": round(medians["torch"] / medians["native"], 2),
    }


def _step(executor: Executor, batch: Batch) -> Callable[[], object]:
    return lambda: executor.run(batch)


def measure_tier(path: Path, tier: Tier) -> dict[str, Any]:
    """Load both, measure every case, and let them go."""
    executors, loading = {}, {}
    for name in ("torch", "native"):
        executors[name], took = load(path, tier, name)
        loading[name] = round(took, 2)
    cases = []
    for case in CASES:
        cases.append(measure(case, executors))
        print(f"{TIERS[tier]} bit, {case.name}: {cases[-1]['milliseconds']} ms, "
              f"native is {cases[-1]['native_times_torch']} times as fast")  # fmt: skip
    return {"bits": TIERS[tier], "loading_seconds": loading, "cases": cases}


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native_step", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a checkpoint that the native step knows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of each")
    parser.add_argument("--tier", choices=TIERS, action="append", help="one tier only; may be repeated")
    parser.add_argument("--result", type=Path, default=RESULTS / "native_step.json", help="where to write")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(options.threads)
    instructions = best_instructions()
    tiers = []
    for tier in options.tier or TIERS:
        tiers.append(measure_tier(options.model, tier))
        gc.collect()
    report = circumstances() | {
        "model": open_checkpoint(options.model).config.model_type,
        "threads": options.threads,
        "instructions": instructions.value if instructions else None,
        "tiers": tiers,
    }
    write_report(options.result, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
