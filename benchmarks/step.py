"""How long a step takes as it grows, and what is done beside the device: `python -m benchmarks.step --help`.

A step's time is measured against its sequences, the tokens before them and the rows of a prompt, straight
on the executor; and with answers that are really read, what the engine does between two steps.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.prompts import PromptMaker
from benchmarks.report import RESULTS, circumstances, write_report
from contract import ChatMessage, Sampling
from engine.batch import Batch, Executor, Span
from engine.loading.own_thread import in_own_thread
from workers.local import LocalModel, load_local_model
from workers.placement import Placement

#: Sequences of a step; each is about to choose its next token.
SEQUENCES = (1, 2, 4, 8, 16, 32, 64)

#: Tokens before such a step, the new one included, and of the steps whose sequences are counted.
CONTEXTS = (128, 512, 2048, 8192)
USUAL_CONTEXT = 256

#: Rows of one prompt in a step.
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

#: Each step is measured so often, all of them in turn: a machine's speed changes while one measures.
TIMES = 7

#: Answers that are read at once, and their tokens, to see what the engine does between two steps.
READERS = (1, 8, 32)
ANSWER_TOKENS = 48


class TimedExecutor:
    """Passes steps on and notes when each began and ended, and its rows."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.cache_blocks = executor.cache_blocks
        self.block_tokens = executor.block_tokens
        self.cheap_rows = executor.cheap_rows
        self.steps: list[tuple[float, float, int]] = []

    def run(self, batch: Batch) -> torch.Tensor:
        """Compute the rows; see `Executor.run`."""
        began = time.perf_counter()
        logits = self._executor.run(batch)
        self.steps.append((began, time.perf_counter(), len(batch.tokens)))
        return logits


def step_of(sequences: int, rows: int, context_tokens: int, block_tokens: int) -> Batch:
    """Return a step of sequences with blocks of their own, each with so many rows up to its context's end."""
    batch = Batch([], [], [], [], [])
    blocks_each = -(-context_tokens // block_tokens)
    for place in range(sequences):
        blocks = tuple(range(place * blocks_each, (place + 1) * blocks_each))
        batch.spans.append(Span(len(batch.tokens), rows, context_tokens, blocks))
        for position in range(context_tokens - rows, context_tokens):
            batch.tokens.append(100 + (7 * position + place) % 1000)
            batch.positions.append(position)
            batch.slots.append(blocks[position // block_tokens] * block_tokens + position % block_tokens)
        batch.logit_rows.append(len(batch.tokens) - 1)
    return batch


def time_steps(executor: Executor) -> dict[str, list[dict[str, Any]]]:
    """Return the milliseconds of steps by sequences, by context and by rows of a prompt."""
    kinds = {
        "by_batch": [(count, 1, USUAL_CONTEXT) for count in SEQUENCES],
        "by_context": [(8, 1, context) for context in CONTEXTS],
        "by_rows": [(1, rows, max(rows, USUAL_CONTEXT)) for rows in ROWS],
    }
    return {kind: list(_timed(executor, cases)) for kind, cases in kinds.items()}


def _timed(executor: Executor, cases: Sequence[tuple[int, int, int]]) -> Iterator[dict[str, Any]]:
    batches = {case: step_of(*case, executor.block_tokens) for case in cases}
    seconds: dict[tuple[int, int, int], list[float]] = {case: [] for case in cases}
    for time_of_all in range(TIMES + 1):
        for case, batch in batches.items():
            began = time.perf_counter()
            executor.run(batch)
            if time_of_all:  # the first is slower: memory is used for the first time
                seconds[case].append(time.perf_counter() - began)
    for (sequences, rows, context_tokens), found in seconds.items():
        milliseconds = 1000 * statistics.median(found)
        yield {
            "sequences": sequences,
            "rows": rows,
            "context_tokens": context_tokens,
            "milliseconds": round(milliseconds, 2),
            "milliseconds_per_row": round(milliseconds / (sequences * rows), 3),
        }


def time_engine(model: LocalModel, maker: PromptMaker) -> list[dict[str, Any]]:
    """Return, by answers read at once, a step's milliseconds and those between it and the next."""
    timed = TimedExecutor(model.engine.executor)
    model.engine.executor = timed
    found = []
    for readers in READERS:
        timed.steps.clear()
        with ThreadPoolExecutor(readers) as pool:
            list(pool.map(lambda _: _read(model, maker.draw(64)), range(readers)))
        # Steps of a token for each, and neither the first ones, with prompts, nor the last, when some ended.
        whole = [place for place, step in enumerate(timed.steps[:-1]) if readers <= step[2] <= 2 * readers]
        computing = [timed.steps[place][1] - timed.steps[place][0] for place in whole]
        between = [timed.steps[place + 1][0] - timed.steps[place][1] for place in whole]
        found.append(
            {
                "sequences": readers,
                "steps": len(whole),
                "milliseconds": round(1000 * statistics.median(computing), 2),
                "milliseconds_between": round(1000 * statistics.median(between), 2),
                "share_between": round(sum(between) / (sum(between) + sum(computing)), 4),
            }
        )
    return found


def _read(model: LocalModel, content: str) -> None:
    sampling = Sampling(temperature=0.7, max_tokens=ANSWER_TOKENS, ignore_end=True, seed=1)
    for _ in model.generate([ChatMessage("user", content)], sampling):
        pass


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--executor", choices=("torch", "native"), default="torch")
    parser.add_argument("--tier", choices=("large", "medium", "small"), default="large")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="where the result goes, else benchmarks/results/")
    options = parser.parse_args()
    placement = Placement(
        device="cpu",
        threads=options.threads,
        tier=options.tier,
        executor=options.executor,
        context_tokens=max(CONTEXTS),
        capacity=max(READERS),
    )
    model = load_local_model(options.model, "measured", placement)
    try:
        report = circumstances()
        report |= in_own_thread(lambda: time_steps(model.engine.executor), "measuring")
        report["beside_the_device"] = time_engine(model, PromptMaker(options.model))
    finally:
        model.close()
    output = options.output or RESULTS / f"step_{options.executor}_{options.tier}.json"
    write_report(output, report)
    print(f"written: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
