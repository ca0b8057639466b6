"""What choosing tokens costs beside the model: `python -m benchmarks.sampler [--against SAMPLER.py]`."""

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from contract import Sampling
from engine.sampler import choose
from engine.tally import Tally
from grammar import Allowed, Vocabulary

RESULT = Path(__file__).parent / "results" / "sampler.json"

#: Qwen's, the largest in common use.
VOCABULARY_SIZE = 151_936

#: Sequences of one step.
ROWS = (1, 8, 32)

#: Tokens of each sequence, the last of them its answer's.
CONTEXT_TOKENS = 8192
ANSWER_TOKENS = 1024

#: Each case is measured so many times; the cases take turns, so that all meet the same noise.
ROUNDS = 15

#: How many tokens the two constraints allow: about as many as in a number, and inside a text.
LISTED_TOKENS = 200
MASKED_TOKENS = 147_000

NOW = "now"

WARM = Sampling(temperature=0.8)


@dataclass(frozen=True)
class FixedConstraint:
    """Allows the same at every step."""

    choice: Allowed
    is_finished: bool = False
    may_end: bool = False

    def prepare(self) -> None:
        """There is nothing to work out."""

    def allowed(self) -> Allowed:
        return self.choice

    def advance(self, token: int) -> None:
        """It stays as it is."""

    def take_forced(self) -> list[int]:
        return []


@dataclass(frozen=True)
class Case:
    """Settings of all sequences of a step; `is_flat` means that thousands of tokens are about as probable."""

    sampling: Sampling
    is_flat: bool = False
    allowed: Allowed | None = None


def cases() -> dict[str, Case]:
    random = np.random.default_rng(3)
    listed = random.choice(VOCABULARY_SIZE, LISTED_TOKENS, replace=False).tolist()
    masked = np.zeros(VOCABULARY_SIZE, np.bool_)
    masked[random.choice(VOCABULARY_SIZE, MASKED_TOKENS, replace=False)] = True
    penalties = Sampling(temperature=0.8, repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=0.5)
    return {
        "greedy": Case(Sampling(temperature=0)),
        "temperature": Case(WARM),
        "temperature, top_p 0.9": Case(Sampling(temperature=0.8, top_p=0.9)),
        "the same, flat": Case(Sampling(temperature=0.8, top_p=0.9), is_flat=True),
        "temperature, top_p 0.9, top_k 40": Case(Sampling(temperature=0.8, top_p=0.9, top_k=40)),
        "temperature, min_p 0.05": Case(Sampling(temperature=0.8, min_p=0.05)),
        "temperature, all penalties, 8k context": Case(penalties),
        "temperature, listed constraint": Case(WARM, allowed=listed),
        "temperature, masked constraint": Case(WARM, allowed=masked),
        "greedy, 5 logprobs": Case(Sampling(temperature=0, logprobs=5)),
    }


def rows_of_logits(rows: int, *, is_flat: bool) -> torch.Tensor:
    """Return logits of noise; unless flat, a few hundred stand out, as where a model knows what to say."""
    random = np.random.default_rng(rows)
    logits = random.normal(0, 2.5, (rows, VOCABULARY_SIZE)).astype(np.float32)
    if not is_flat:
        for row in logits:
            heads = random.choice(VOCABULARY_SIZE, 300, replace=False)
            row[heads] += 18 - 1.5 * np.log1p(np.arange(300)).astype(np.float32)
    return torch.from_numpy(logits)


def sequences_of(case: Case, rows: int) -> list[Any]:
    """Return stand-ins with all that a sampler, this one or an older one, reads from a sequence."""
    random = np.random.default_rng(rows)
    vocabulary = Vocabulary([None] * VOCABULARY_SIZE, lambda text: [])
    constraint = None if case.allowed is None else FixedConstraint(case.allowed)
    return [
        SimpleNamespace(
            tokens=(tokens := random.integers(0, VOCABULARY_SIZE, CONTEXT_TOKENS).tolist()),
            prompt_tokens=CONTEXT_TOKENS - ANSWER_TOKENS,
            answer=tokens[-ANSWER_TOKENS:],
            answered=ANSWER_TOKENS,
            choice=0,
            seed=place,
            sampling=case.sampling,
            end_ids=frozenset({7}),
            constraint=constraint,
            vocabulary=vocabulary,
            tally=Tally(),
        )
        for place in range(rows)
    ]


Choose = Callable[[Iterable[torch.Tensor], list[Any]], Any]


def measure(samplers: dict[str, Choose]) -> dict[str, dict[str, dict[str, float]]]:
    """Return medians in milliseconds of processor time per step: sampler → case → rows.

    All in one thread, so that what else the machine does hardly shows.
    """
    torch.set_num_threads(1)
    steps = {
        (name, case_name, rows): (sampler, sequences_of(case, rows), (rows, case.is_flat))
        for name, sampler in samplers.items()
        for case_name, case in cases().items()
        for rows in ROWS
        if name == NOW or case.sampling.logprobs is None  # which the older ones cannot tell
    }
    logits = {(rows, flat): rows_of_logits(rows, is_flat=flat) for rows in ROWS for flat in (False, True)}
    seconds: dict[tuple[str, str, int], list[float]] = {key: [] for key in steps}
    for _ in range(ROUNDS):
        for key, (sampler, sequences, which) in steps.items():
            started = time.thread_time()
            sampler(logits[which], sequences)
            seconds[key].append(time.thread_time() - started)
    result: dict[str, dict[str, dict[str, float]]] = {}
    for (name, case_name, rows), times in seconds.items():
        median = round(1000 * statistics.median(times), 3)
        result.setdefault(name, {}).setdefault(case_name, {})[str(rows)] = median
    return result


def older_sampler(path: Path) -> Choose:
    """Return the `choose` of another version's file."""
    spec = importlib.util.spec_from_file_location("older_sampler", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    older: Choose = module.choose
    return older


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="engine/sampler.py of an earlier commit")
    path = parser.parse_args().against
    samplers: dict[str, Choose] = {NOW: choose}
    if path is not None:
        samplers["before"] = older_sampler(path)
    result = {
        "date": date.today().isoformat(),
        "vocabulary": VOCABULARY_SIZE,
        "processor milliseconds": measure(samplers),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
