"""How near a GPU comes to what its memory allows, with GLM-4-9B's shape: `python -m benchmarks.gpu`.

The weights are random, so that no checkpoint is needed: the answers mean nothing, but cost what real
ones cost. `--device cpu --tiny` tries out that everything runs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from benchmarks.gpu_books import books
from benchmarks.gpu_model import (
    GLM_4_9B,
    TINY,
    ModelShape,
    Workload,
    bandwidth,
    bytes_per_token,
    load_tokenizer,
    make_model,
    padded,
    synchronize,
)
from contract import Sampling
from engine.batch import Batch, Span
from engine.engine import Engine
from engine.executors.cuda_executor import CudaExecutor
from engine.executors.fused import compile_layers, fuse_norms
from engine.executors.torch_executor import TorchExecutor

RESULT = Path(__file__).parent / "results" / "gpu.json"

#: Share of the free memory that the key/value cache gets, and its bytes without a GPU.
CACHE_SHARE = 0.5
CACHE_BYTES_CPU = 1 << 28

#: Most tokens of one step of the engine.
STEP_TOKENS = 1024

#: Rows of the steps that are timed without the engine, and how often each is.
TIMED_ROWS = (1, 2, 4, 8, 16, 32, 64)
TIMED_STEPS = 30


def measure(
    shape: ModelShape, device: torch.device, *, use_graphs: bool, use_compiler: bool
) -> dict[str, Any]:
    """Return all figures: bytes, bytes per second, tokens per second, milliseconds."""
    work = shape.workload
    model = make_model(shape, device)
    weight_bytes, read = bytes_per_token(model), bandwidth(device, work.bandwidth_bytes)
    limit = read / weight_bytes
    started = time.perf_counter()
    executor = _executor(model, work, use_graphs=use_graphs, use_compiler=use_compiler)
    result: dict[str, Any] = {
        "bandwidth_bytes_per_second": round(read),
        "weight_bytes_per_token": weight_bytes,
        "limit_tokens_per_second": round(limit, 1),
        "ready_seconds": round(time.perf_counter() - started, 1),
        "step_milliseconds": {
            str(rows): _step_milliseconds(executor, rows, work) for rows in TIMED_ROWS if rows <= work.streams
        },
    }
    with _running(executor, shape) as engine:
        single = streams(engine, 1, work)
        result["single_stream"] = {**single, "share_of_limit": round(single["tokens_per_second"] / limit, 3)}
        result["many_streams"] = streams(engine, work.streams, work)
        result["books"] = books(engine, load_tokenizer(), work.rounds)
    result["generate"] = generate(model, device, result["books"])
    return result


def _executor(
    model: PreTrainedModel, work: Workload, *, use_graphs: bool, use_compiler: bool
) -> CudaExecutor:
    device = model.device
    fuse_norms(model)
    if use_compiler:
        compile_layers(model, lambda: TorchExecutor(model, CACHE_BYTES_CPU, 256))
    memory = CACHE_BYTES_CPU
    if device.type == "cuda":
        memory = int(torch.cuda.mem_get_info(device)[0] * CACHE_SHARE)
    most_tokens = work.streams * work.context_tokens
    return CudaExecutor(model, memory, most_tokens, most_sequences=work.streams, use_graphs=use_graphs)


@contextmanager
def _running(executor: CudaExecutor, shape: ModelShape) -> Iterator[Engine]:
    engine = Engine(
        executor,
        padded(load_tokenizer().vocabulary, shape.vocabulary),
        frozenset(),
        capacity=shape.workload.streams,
        context_tokens=shape.workload.context_tokens,
        step_tokens=STEP_TOKENS,
    )
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def _step_milliseconds(executor: CudaExecutor, rows: int, work: Workload) -> float:
    """Return the median time of a step in which so many sequences compute a token each, logits included."""
    size = executor.block_tokens
    context = min(work.prompt_tokens + work.answer_tokens, executor.cache_blocks // rows * size)
    per_row = -(-context // size)
    spans = [Span(row, 1, context, tuple(range(row * per_row, (row + 1) * per_row))) for row in range(rows)]
    slots = [span.blocks[-1] * size + (context - 1) % size for span in spans]
    batch = Batch(list(range(rows)), [context - 1] * rows, slots, spans, list(range(rows)))
    executor.run(batch)
    times = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        executor.run(batch)
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 3)


def streams(engine: Engine, count: int, work: Workload) -> dict[str, float]:
    """Read so many greedy answers at once, twice; return the figures of the second time.

    `tokens_per_second` counts from when all have their first token to when the first has its last.
    """
    for start in (1, 1000):
        prompts = [
            [(start + stream + place) % 4000 for place in range(work.prompt_tokens)]
            for stream in range(count)
        ]
        with ThreadPoolExecutor(count) as readers:
            times = list(readers.map(lambda prompt: _token_times(engine, prompt, work), prompts))
    begun, ended = max(own[0] for own in times), min(own[-1] for own in times)
    tokens = sum(sum(begun < moment <= ended for moment in own) for own in times)
    return {
        "streams": count,
        "answer_tokens": work.answer_tokens,
        "tokens_per_second": round(tokens / (ended - begun), 1) if ended > begun else 0.0,
    }


def _token_times(engine: Engine, prompt: list[int], work: Workload) -> list[float]:
    """Return when each token came."""
    sampling = Sampling(temperature=0.0, max_tokens=work.answer_tokens, ignore_end=True)
    times: list[float] = []
    for token in engine.generate(prompt, sampling):
        times += [time.perf_counter()] * len(token.ids)
    return times


@torch.inference_mode()
def generate(model: PreTrainedModel, device: torch.device, task: dict[str, Any]) -> dict[str, float]:
    """Time transformers' own `generate()` on a prompt and an answer as long as those of the book task."""
    for module in model.modules():
        module._compiled_call_impl = None
    model.set_attn_implementation("sdpa")
    tokens = int(task["answer_tokens"])
    prompt = torch.ones(1, int(task["prompt_tokens"]), dtype=torch.long, device=device)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        model.generate(  # type: ignore[operator]
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        synchronize(device)
        times.append(time.perf_counter() - started)
    seconds = min(times)
    return {
        "seconds": round(seconds, 4),
        "over_books_cold": round(seconds / task["cold_seconds"], 2),
        "over_books_warm": round(seconds / task["warm_seconds"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda (default) or cpu")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the command out")
    parser.add_argument("--no-graphs", action="store_true", help="launch every kernel by itself")
    parser.add_argument("--compile", action="store_true", help="compile what is between the attentions")
    parser.add_argument(
        "--out", type=Path, help=f"where to write the result; default {RESULT}, --tiny: nowhere"
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    shape = TINY if options.tiny else GLM_4_9B
    figures = measure(shape, device, use_graphs=not options.no_graphs, use_compiler=options.compile)
    result = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model": shape.name,
        "graphs": not options.no_graphs,
        "compiled": options.compile,
        **figures,
    }
    print(json.dumps(result, indent=1))
    out = options.out or (None if options.tiny else RESULT)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
