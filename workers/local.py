"""A checkpoint in a local folder, loaded by transformers and run by the engine."""

import hashlib
import logging
import textwrap
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import cast

import psutil
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from contract import AnswerForm, ChatMessage, Completion, ModelCard, Sampling, Token
from engine.checkpoints import original
from engine.engine import Engine
from engine.executors.prepacked import can_prepack, prepack
from engine.executors.torch_executor import TorchExecutor, UnsupportedModel
from engine.tokenizer import ChatTokenizer, UnsupportedTokenizer
from workers.errors import CannotLoad

logger = logging.getLogger(__name__)

#: Share of the memory left after the weights are loaded that the key/value cache may take.
CACHE_SHARE_CPU = 0.25
CACHE_SHARE_CUDA = 0.85

#: Bytes of each file's head and tail that enter the fingerprint: reading 20 GB would take too long.
FINGERPRINT_BYTES = 1 << 20

#: Characters of the reason why a model cannot be loaded: some libraries name all they know.
REASON_CHARACTERS = 300


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
        self, messages: Sequence[ChatMessage], sampling: Sampling, constraint: AnswerForm | None = None
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
    if not path.is_dir():
        raise CannotLoad(f"cannot load the model in {path}: there is no such folder")
    try:
        tokenizer = _load_tokenizer(path)
        model = _load_weights(path, cuda)
        _check_fit(model, tokenizer)
        if not cuda and can_prepack():
            prepack(model)
        context = _context_tokens(model, context_tokens)
        executor = TorchExecutor(model, _cache_bytes(cuda), most_tokens=capacity * context)
    except Exception as error:  # a file that is not what it should be makes libraries raise anything
        logger.debug("Loading %s failed", path, exc_info=True)
        raise CannotLoad(f"cannot load the model in {path}: {_one_line(error)}") from error
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
    kinds = {".safetensors", ".json", ".model", ".jinja", ".txt", ".tiktoken"}
    files = sorted(file for file in path.iterdir() if file.suffix in kinds)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(FINGERPRINT_BYTES))
            stream.seek(max(0, size - FINGERPRINT_BYTES))
            digest.update(stream.read())
    return digest.hexdigest()[:16]


def _load_tokenizer(path: Path) -> ChatTokenizer:
    if original.is_original(path):
        return original.load_tokenizer(path)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UnsupportedTokenizer(f"{type(tokenizer).__name__} has no tokenizer.json form")
    return ChatTokenizer(tokenizer)


def _load_weights(path: Path, cuda: bool) -> PreTrainedModel:
    """Load over all GPUs in bfloat16 (accelerate places the layers), or on the CPU."""
    device_map = "auto" if cuda else None
    if original.is_original(path):
        glm = original.read_config(path)
        return original.load_weights(path, glm, _dtype(glm.dtype, cuda), device_map)
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    loaded: object = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        dtype=_dtype(config.dtype, cuda),
        device_map=device_map,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, report = cast(tuple[PreTrainedModel, dict[str, set[str]]], loaded)
    if missing := sorted(report["missing_keys"]):
        raise UnsupportedModel(f"its files lack {len(missing)} weights, the first of them {missing[0]}")
    return model


def _check_fit(model: PreTrainedModel, tokenizer: ChatTokenizer) -> None:
    """Find out now what would else break the first answer."""
    rows = model.config.vocab_size
    prompt = tokenizer.encode([ChatMessage("user", "?")])
    if any(tokenizer.vocabulary.tokens[rows:]) or max(prompt) >= rows:
        ids = len(tokenizer.vocabulary)
        raise UnsupportedModel(f"the tokenizer has {ids} ids, but the weights know only {rows}")


def _dtype(stored: object, cuda: bool) -> torch.dtype:
    """On the CPU, 16 bit only where it multiplies bfloat16 itself; emulated, that is slower than float32."""
    has_16_bits = stored in (torch.bfloat16, torch.float16)
    if cuda or (has_16_bits and torch.cpu._is_avx512_bf16_supported()):
        return torch.bfloat16
    return torch.float32


def _one_line(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", REASON_CHARACTERS, placeholder=" …")


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
