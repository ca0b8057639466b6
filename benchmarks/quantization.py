"""What 16, 8 and 4 bits cost on the CPU, in time and in quality: `python -m benchmarks.quantization`."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.quantization_quality import of_embedded_model, of_random_model
from benchmarks.random_model import SHAPE
from engine.executors.integer_products import greatest_weight
from engine.executors.quantized import compressed_linear

RESULT = Path(__file__).parent / "results" / "quantization.json"

#: Rows of a step: one stream, some, many, a piece of a prompt.
ROWS = (1, 8, 32, 512)

#: Forms of the weights, in bits.
FORMS = (16, 8, 4)

#: Seconds for which each figure is measured. Every layer's best time counts: other work on the machine,
#: which only adds, disturbs that least.
SECONDS = 5.0

#: Layers that are there at a time: together larger than a processor's cache, as a whole model is.
LAYERS = 8


def measure_speed() -> dict[str, Any]:
    """Return milliseconds of one step for all layers, and for the output layer alone, by bits and rows."""
    hidden, vocabulary = SHAPE["hidden_size"], SHAPE["vocab_size"]
    times = SHAPE["num_hidden_layers"] // LAYERS
    return {
        "linear layers": {str(bits): _times([*_shapes()] * LAYERS, bits, times) for bits in FORMS},
        "output layer": {str(bits): _times([(hidden, vocabulary)], bits, 1) for bits in FORMS[:2]},
    }


def _shapes() -> Sequence[tuple[int, int]]:
    """Return the linear layers of one decoder layer: columns in, columns out."""
    hidden, wide = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    key = hidden // SHAPE["num_attention_heads"] * SHAPE["num_key_value_heads"]
    attention = [(hidden, hidden), (hidden, key), (hidden, key), (hidden, hidden)]
    return [*attention, (hidden, wide), (hidden, wide), (wide, hidden)]


@torch.inference_mode()
def _times(shapes: Sequence[tuple[int, int]], bits: int, times: int) -> dict[str, float]:
    layers = [_layer(shape, bits) for shape in shapes]
    found = {}
    for count in ROWS:
        rows = {width: torch.randn(count, width).bfloat16() for width, _ in shapes}
        best = [float("inf")] * len(layers)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or best[-1] == float("inf"):
            for place, layer in enumerate(layers):
                begin = time.perf_counter()
                layer(rows[shapes[place][0]])
                best[place] = min(best[place], time.perf_counter() - begin)
        found[str(count)] = round(1000 * times * sum(best), 1)
    return found


def _layer(shape: tuple[int, int], bits: int) -> nn.Module:
    linear = nn.Linear(*shape, bias=False, dtype=torch.bfloat16)
    nn.init.normal_(linear.weight, std=0.02)
    return compressed_linear(linear, bits)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantization", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--catalogues", type=int, default=8, help="catalogues of each size (default: 8)")
    parser.add_argument(
        "--only", choices=["speed", "random", "embedded"], help="measure that, print, write nothing"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measurements: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": measure_speed,
        "random": of_random_model,
        "embedded": lambda: of_embedded_model(options.threads, options.catalogues),
    }
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": options.threads,
        "greatest weight": greatest_weight(),
    }
    for name, measurement in measurements.items():
        if options.only in (None, name):
            result[name] = measurement()
    print(json.dumps(result, indent=1))
    if options.only is None:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
