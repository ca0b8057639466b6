"""A checkpoint in a local folder, loaded by transformers and run by the engine."""

import hashlib
import logging
import textwrap
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from contract import AnswerForm, ChatMessage, Completion, ModelCard, Sampling, Token
from engine.batch import Executor
from engine.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engine.engine import Engine
from engine.executors.cuda_executor import CudaExecutor
from engine.executors.fused import fuse_norms
from engine.executors.native.executor import NativeExecutor
from engine.executors.native.huge_pages import HugePages
from engine.executors.torch_executor import TorchExecutor, UnsupportedModel
from engine.loading.load import PlannedLoad, plan_load
from engine.loading.own_thread import OwnThread, in_own_thread
from engine.loading.plan import DoesNotFit, MemoryPlan, Wish
from engine.loading.warming import warm
from engine.tokenizer import ChatTokenizer
from workers.errors import CannotLoad
from workers.placement import Placement

logger = logging.getLogger(__name__)

#: Bytes of each file's head and tail that enter the fingerprint: reading 20 GB would take too long.
FINGERPRINT_BYTES = 1 << 20

#: Characters of the reason why a model cannot be loaded: some libraries name all they know.
REASON_CHARACTERS = 300


class LocalModel:
    """A model in this process: many answers at once, each read from its own generator."""

    def __init__(self, card: ModelCard, tokenizer: ChatTokenizer, engine: Engine) -> None:
        self._card = card
        self._tokenizer = tokenizer
        self.engine = engine

    @property
    def card(self) -> ModelCard:
        return self._card

    def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        constraint: AnswerForm | None = None,
        said: Sequence[Sequence[int]] = (),
    ) -> Generator[Token, None, Completion]:
        """Yield the assistant's next turn; see `contract.Model`."""
        prompt = self._tokenizer.encode(messages)
        goes_on = messages[-1].role == "assistant"
        return (yield from self.engine.generate(prompt, sampling, constraint, goes_on=goes_on, said=said))

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Return how many tokens the prompt has."""
        return len(self._tokenizer.encode(messages))

    def split_tokens(self, text: str) -> tuple[str, ...]:
        """Return the tokens of a text by itself."""
        return self._tokenizer.split(text)

    def close(self) -> None:
        """Stop the engine; answers that still run end with Draining."""
        self.engine.stop()


def load_local_model(
    path: Path, name: str, placement: Placement, memory: HugePages | None = None
) -> LocalModel:
    """Load the checkpoint in the folder and start its engine; packed weights go to `memory`.

    Raises CannotLoad with one line that says what stands in the way.
    """
    if not path.is_dir():
        raise CannotLoad(f"cannot load the model in {path}: there is no such folder")
    memory = memory or HugePages()
    try:
        tokenizer, engine, tier = in_own_thread(partial(_load, path, placement, memory), "loading")
    except DoesNotFit as error:
        raise CannotLoad(f"the model in {path} does not fit: {error}") from error
    except Exception as error:  # a file that is not what it should be makes libraries raise anything
        logger.debug("Loading %s failed", path, exc_info=True)
        raise CannotLoad(f"cannot load the model in {path}: {one_line(error)}") from error
    finally:
        memory.settle()
    engine.start()
    logger.info("Loaded %s with %d tokens of context", name, engine.context_tokens)
    card = ModelCard(name=name, fingerprint=fingerprint(path, tier), context_tokens=engine.context_tokens)
    return LocalModel(card, tokenizer, engine)


def fingerprint(path: Path, tier: str = "large") -> str:
    """Return 16 hexadecimal digits that differ where weights, tier, configuration or tokenizer differ."""
    return fingerprint_of(telling_files(path), "" if tier == "large" else tier)


def fingerprint_of(files: Sequence[Path], word: str = "") -> str:
    """Return 16 hexadecimal digits that differ where files differ, by their heads and tails."""
    digest = hashlib.sha256(word.encode())
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(FINGERPRINT_BYTES))
            stream.seek(max(0, size - FINGERPRINT_BYTES))
            digest.update(stream.read())
    return digest.hexdigest()[:16]


def telling_files(path: Path) -> list[Path]:
    """Return the files of a folder that say what a model says."""
    kinds = {".safetensors", ".json", ".model", ".jinja", ".txt", ".tiktoken"}
    return sorted(file for file in path.iterdir() if file.suffix in kinds)


def _load(path: Path, placement: Placement, memory: HugePages) -> tuple[ChatTokenizer, Engine, str]:
    """Return what answers, not started yet, and the tier of its weights."""
    if placement.threads:
        torch.set_num_threads(placement.threads)
    checkpoint = open_checkpoint(path)
    is_cuda = placement.device == "cuda" or (placement.device == "auto" and torch.cuda.is_available())
    context_tokens = _context_tokens(checkpoint, placement.context_tokens)
    most_tokens = placement.capacity * context_tokens
    wish = Wish(placement.tier, context_tokens, placement.context_tokens > 0, most_tokens)
    planned = plan_load(
        checkpoint,
        wish,
        is_cuda=is_cuda,
        memory_bytes=placement.memory_bytes,
        capacity=placement.capacity,
        executor=placement.executor,
        ahead=memory,
    )
    reading = OwnThread(partial(_read_tokenizer, checkpoint), "tokenizer")
    model, executor = _bring(planned, most_tokens, placement.capacity)
    tokenizer = reading.result()
    engine = Engine(
        executor,
        tokenizer.vocabulary,
        _end_ids(model, tokenizer),
        capacity=placement.capacity,
        context_tokens=context_tokens,
        model_ids=checkpoint.config.vocab_size,
    )
    return tokenizer, engine, planned.memory.tier


def _read_tokenizer(checkpoint: Checkpoint) -> ChatTokenizer:
    """Return the tokenizer, ready for answers in JSON; raise now what would else break the first answer."""
    tokenizer = checkpoint.load_tokenizer()
    rows = checkpoint.config.vocab_size
    prompt = tokenizer.encode([ChatMessage("user", "?")])
    if any(tokenizer.vocabulary.tokens[rows:]) or max(prompt) >= rows:
        ids = len(tokenizer.vocabulary)
        raise UnsupportedModel(f"the tokenizer has {ids} ids, but the weights know only {rows}")
    warm(tokenizer.vocabulary)
    return tokenizer


def _bring(planned: PlannedLoad, most_tokens: int, capacity: int) -> tuple[PreTrainedModel, Executor]:
    """Return the model as its config describes it, and what computes it."""
    if planned.is_native:
        model, packed = planned.carry_out_packed()
        return model, NativeExecutor(packed, planned.memory.cache_bytes, most_tokens)
    model = planned.carry_out()
    return model, _torch_executor(model, planned.memory, most_tokens, capacity)


def _torch_executor(
    model: PreTrainedModel, memory: MemoryPlan, most_tokens: int, capacity: int
) -> TorchExecutor:
    if model.device.type == "cuda":
        fuse_norms(model)
        return CudaExecutor(model, memory.cache_bytes, most_tokens, most_sequences=capacity)
    return TorchExecutor(model, memory.cache_bytes, most_tokens)


def _context_tokens(checkpoint: Checkpoint, wanted: int) -> int:
    own = int(checkpoint.config.max_position_embeddings)
    return min(own, wanted or own)


def _end_ids(model: PreTrainedModel, tokenizer: ChatTokenizer) -> frozenset[int]:
    """The ids that end an answer: by the generation config or the model's own, and by the tokenizer.

    Models that were taught to chat later often end with the tokenizer's, while the config names another.
    """
    ids: int | list[int] | None = None
    if model.generation_config is not None:
        ids = model.generation_config.eos_token_id
    if ids is None:
        ids = model.config.eos_token_id
    said = [ids] if isinstance(ids, int) else ids or []
    return frozenset(said if tokenizer.end_id is None else [*said, tokenizer.end_id])


def one_line(error: Exception) -> str:
    """Return what an error says, shortened for a log line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", REASON_CHARACTERS, placeholder=" …")
