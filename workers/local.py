"""A checkpoint in a local folder, loaded by transformers and run by the engine."""

import hashlib
import logging
from collections.abc import Generator, Sequence
from pathlib import Path

import psutil
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from contract import ChatMessage, ChooseRows, Completion, ModelCard, Sampling, Token
from engine.engine import Engine
from engine.executors.torch_executor import TorchExecutor, UnsupportedModel
from engine.tokenizer import ChatTokenizer, UnsupportedTokenizer
from workers.errors import CannotLoad

logger = logging.getLogger(__name__)

#: Share of the memory left after the weights are loaded that the key/value cache may take.
CACHE_SHARE_CPU = 0.25
CACHE_SHARE_CUDA = 0.85

#: Bytes of each file's head and tail that enter the fingerprint: reading 20 GB would take too long.
FINGERPRINT_BYTES = 1 << 20


class LocalModel:
    """A model in this process: many answers at once, each read from its own generator."""

    def __init__(self, card: ModelCard, tokenizer: ChatTokenizer, engine: Engine) -> None:
        self._card = card
        self._tokenizer = tokenizer
        self._engine = engine

    @property
    def card(self) -> ModelCard:
        return self._card

    def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling, constraint: ChooseRows | None = None
    ) -> Generator[Token, None, Completion]:
        """Yield the assistant's next turn; see `contract.Model`."""
        return (yield from self._engine.generate(self._tokenizer.encode(messages), sampling, constraint))

    def close(self) -> None:
        """Stop the engine; answers that still run end with Draining."""
        self._engine.stop()


def load_local_model(
    path: Path, name: str, *, device: str, threads: int, context_tokens: int, capacity: int
) -> LocalModel:
    """Load the checkpoint in the folder and start its engine.

    `device` is auto, cpu or cuda; `threads` 0 leaves the choice to torch; `context_tokens` 0 takes
    the checkpoint's own limit. Raises CannotLoad with one line that says what stands in the way.
    """
    if threads:
        torch.set_num_threads(threads)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    try:
        tokenizer = ChatTokenizer(_load_tokenizer(path))
        model = _load_weights(path, cuda)
        context = _context_tokens(model, context_tokens)
        executor = TorchExecutor(model, _cache_bytes(cuda), most_tokens=capacity * context)
    except (OSError, ValueError, KeyError, RuntimeError, UnsupportedModel, UnsupportedTokenizer) as error:
        raise CannotLoad(f"cannot load the model in {path}: {error}") from error
    engine = Engine(
        executor, tokenizer.vocabulary, _end_ids(model), capacity=capacity, context_tokens=context
    )
    engine.start()
    logger.info("Loaded %s with %d tokens of context", name, engine.context_tokens)
    card = ModelCard(name=name, fingerprint=fingerprint(path), context_tokens=engine.context_tokens)
    return LocalModel(card, tokenizer, engine)


def fingerprint(path: Path) -> str:
    """Return 16 hexadecimal digits that differ where weights, configuration or tokenizer differ."""
    digest = hashlib.sha256()
    kinds = {".safetensors", ".json", ".model", ".jinja"}
    files = sorted(file for file in path.iterdir() if file.suffix in kinds)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(FINGERPRINT_BYTES))
            stream.seek(max(0, size - FINGERPRINT_BYTES))
            digest.update(stream.read())
    return digest.hexdigest()[:16]


def _load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UnsupportedTokenizer(f"{type(tokenizer).__name__} has no tokenizer.json form")
    return tokenizer


def _load_weights(path: Path, cuda: bool) -> PreTrainedModel:
    """Load over all GPUs in bfloat16 (accelerate places the layers), or on the CPU."""
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    dtype = torch.bfloat16 if cuda else _cpu_dtype(config.dtype)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        dtype=dtype,
        device_map="auto" if cuda else None,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    return model


def _cpu_dtype(stored: torch.dtype | None) -> torch.dtype:
    """16 bit only where the processor multiplies bfloat16 itself; emulated, it is slower than float32."""
    if stored in (torch.bfloat16, torch.float16) and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def _cache_bytes(cuda: bool) -> int:
    if cuda:
        free = sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
        return int(free * CACHE_SHARE_CUDA)
    return int(psutil.virtual_memory().available * CACHE_SHARE_CPU)


def _context_tokens(model: PreTrainedModel, wanted: int) -> int:
    own = int(model.config.max_position_embeddings)
    return min(own, wanted or own)


def _end_ids(model: PreTrainedModel) -> frozenset[int]:
    """The ids that end an answer, from the generation config or the model's own."""
    ids: int | list[int] | None = None
    if model.generation_config is not None:
        ids = model.generation_config.eos_token_id
    if ids is None:
        ids = model.config.eos_token_id
    return frozenset([ids] if isinstance(ids, int) else ids or [])
