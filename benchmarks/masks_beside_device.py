"""What it saves to work masks out while the device computes: `python -m benchmarks.masks_beside_device`."""

import importlib
import json
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.grammar_cases import SMALL
from contract import JsonSchema, Sampling
from engine.answer import Answer
from engine.detokenizer import Detokenizer
from engine.masks import Masks
from engine.sequence import Sequence
from grammar import Vocabulary, compile_grammar

RESULT = Path(__file__).parent / "results" / "masks_beside_device.json"

#: Answers under a constraint in one step; seconds a device takes meanwhile, without the processor.
SEQUENCES = (1, 8, 32)
DEVICE_SECONDS = 0.01

ROUNDS = 40


def measure(vocabulary: Vocabulary) -> dict[str, dict[str, float]]:
    """Return medians in milliseconds beyond the device's own time, by the number of sequences."""
    return {str(count): _times([_inside_a_text(vocabulary) for _ in range(count)]) for count in SEQUENCES}


def _inside_a_text(vocabulary: Vocabulary) -> Sequence:
    """Return a sequence in the middle of a JSON string, where most tokens are allowed."""
    constraint = compile_grammar(JsonSchema(json.dumps(SMALL)), vocabulary).start()
    constraint.take_forced()
    for id_ in vocabulary.spell(' "Calculus for'):
        constraint.advance(id_)
    detokenizer = Detokenizer(vocabulary)
    return Sequence(Answer(), [1], 1, Sampling(), 0, 1, frozenset(), vocabulary, detokenizer, constraint)


def _times(sequences: list[Sequence]) -> dict[str, float]:
    masks = Masks()
    beside, before = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        masks.begin(sequences)
        time.sleep(DEVICE_SECONDS)
        for sequence in sequences:
            masks.ending(sequence)
        beside.append(time.perf_counter() - started - DEVICE_SECONDS)
        _forget(sequences)
        started = time.perf_counter()
        for sequence in sequences:
            assert sequence.constraint is not None
            sequence.constraint.prepare()
        before.append(time.perf_counter() - started)
        _forget(sequences)
    masks.close()
    return {
        "beside the device": round(1000 * statistics.median(beside), 3),
        "before it": round(1000 * statistics.median(before), 3),
    }


def _forget(sequences: list[Sequence]) -> None:
    """Go on by one letter, so that there is something to work out again."""
    for sequence in sequences:
        assert sequence.constraint is not None
        sequence.constraint.advance(sequence.detokenizer._vocabulary.spell("a")[0])


def main() -> None:
    vocabularies: Any = importlib.import_module("tests.vocabularies")
    result = {"date": date.today().isoformat(), "milliseconds": measure(vocabularies.qwen2_5())}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
