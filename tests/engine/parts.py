"""Small real parts that the engine's tests are built from."""

import os
import threading
from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from random import Random

import pytest
import torch
from transformers import (
    Glm4Config,
    Glm4ForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from contract import Completion, Sampling
from engine.answer import Answer
from engine.batch import Batch, Executor
from engine.detokenizer import Detokenizer
from engine.engine import Engine
from engine.executors.native.build import CannotBuild
from engine.executors.native.executor import NativeExecutor
from engine.executors.native.processor import best_instructions
from engine.executors.native.weights import pack_model
from engine.executors.torch_executor import TorchExecutor
from engine.sequence import Sequence
from grammar import Constraint, Vocabulary

#: Architectures whose checkpoints are served most.
ARCHITECTURES = {
    "Glm": (GlmConfig, GlmForCausalLM),
    "Glm4": (Glm4Config, Glm4ForCausalLM),
    "Qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "Qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "Llama": (LlamaConfig, LlamaForCausalLM),
}

#: Every byte, then ids that say nothing.
VOCABULARY_SIZE = 272
VOCABULARY = Vocabulary(
    [bytes([byte]) for byte in range(256)] + [None] * (VOCABULARY_SIZE - 256),
    lambda text: list(text.encode()),
)

#: Seconds after which a test gives up on something that should happen at once.
DEADLINE_SECONDS = 20

GREEDY = Sampling(temperature=0.0, max_tokens=20)


def tiny_model(
    architecture: str, vocabulary_size: int = VOCABULARY_SIZE, head_size: int = 8
) -> PreTrainedModel:
    """Return a model of two layers with weights wide enough that its answers vary; equal every time."""
    make_config, make_model = ARCHITECTURES[architecture]
    config = make_config(
        vocab_size=vocabulary_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_size,
        max_position_embeddings=512,
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(5)
    return make_model(config).eval().float()


@cache
def plain_model(architecture: str) -> PreTrainedModel:
    """Return a tiny model that every executor computes: heads of 16, weights that 16 bits hold."""
    model = tiny_model(architecture, head_size=16)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    return model


def native_executor(
    architecture: str = "Llama", *, most_tokens: int = 4096, bits: int = 16
) -> NativeExecutor:
    """Return the native step with such a model, or skip the test where there is none."""
    if best_instructions() is None:
        pytest.skip("this processor has no instructions that the native step is compiled for")
    try:
        packed = pack_model(deepcopy(plain_model(architecture)), bits)
    except CannotBuild as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return NativeExecutor(packed, 1 << 26, most_tokens)


def sequence_of(
    tokens: Items[int],
    *,
    prompt_tokens: int | None = None,
    sampling: Sampling = GREEDY,
    limit_tokens: int = 1 << 20,
    seed: int = 0,
    constraint: Constraint | None = None,
) -> Sequence:
    """Return a sequence that waits for nothing; all its tokens are prompt unless it is said otherwise."""
    return Sequence(
        answer=Answer(sampling.choices),
        tokens=list(tokens),
        prompt_tokens=len(tokens) if prompt_tokens is None else prompt_tokens,
        sampling=sampling,
        seed=seed,
        limit_tokens=limit_tokens,
        end_ids=frozenset(),
        vocabulary=VOCABULARY,
        detokenizer=Detokenizer(VOCABULARY, sampling.stop),
        constraint=constraint,
    )


class CountingExecutor:
    """No model: after every token comes the id above it. Remembers its batches; can be held or broken.

    While `gate` is not set, a step waits in `run`; `entered` says that one does.
    """

    def __init__(self, cache_blocks: int = 64, block_tokens: int = 4, cheap_rows: int = 0) -> None:
        self.cache_blocks = cache_blocks
        self.block_tokens = block_tokens
        self.cheap_rows = cheap_rows
        self.batches: list[Batch] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None

    def run(self, batch: Batch) -> torch.Tensor:
        self.batches.append(batch)
        self.entered.set()
        assert self.gate.wait(DEADLINE_SECONDS)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        logits = torch.zeros(len(batch.logit_rows), VOCABULARY_SIZE)
        for place, row in enumerate(batch.logit_rows):
            logits[place, (batch.tokens[row] + 1) % 256] = 1.0
        return logits


@dataclass
class Heard:
    """What a reader got."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    completion: Completion | None = None


def read(generator) -> Heard:
    """Read an answer to its end; every token must say its own place."""
    answer = Heard()
    while True:
        try:
            token = next(generator)
        except StopIteration as stop:
            answer.completion = stop.value
            return answer
        assert token.index == len(answer.ids)
        answer.ids += token.ids
        answer.text += token.text


def first_token(generator):
    """Read until something comes."""
    return next(token for token in generator if not token.is_empty)


#: What half of the prompts begin with.
BEGINNING = list(range(40, 90))


@cache
def prompts():
    """32 prompts of all sizes, half of them with a long beginning in common."""
    random = Random(4)

    def text(length):
        return [random.randrange(1, 256) for _ in range(length)]

    own = [text(length) for length in (1, 2, 15, 16, 17, 31, 32, 33, 3, 5, 7, 40, 64, 70, 90, 100)]
    return [*own, *(BEGINNING + text(place % 5) for place in range(15)), BEGINNING]


def answers_together(engine, tasks):
    """Read all answers at once, each in its own thread; a task is what `generate` takes."""
    with ThreadPoolExecutor(len(tasks)) as readers:
        return list(readers.map(lambda task: read(engine.generate(*task)), tasks))


def engine_of(
    executor: Executor,
    *,
    vocabulary: Vocabulary = VOCABULARY,
    end_ids: frozenset[int] = frozenset(),
    capacity: int = 8,
    context_tokens: int = 256,
    step_tokens: int = 64,
    model_ids: int | None = None,
) -> Engine:
    """Return an engine that is not started."""
    return Engine(
        executor,
        vocabulary,
        end_ids,
        capacity=capacity,
        context_tokens=context_tokens,
        step_tokens=step_tokens,
        model_ids=model_ids,
    )


@contextmanager
def running_engine(executor: Executor, **options):
    """An engine that runs; at the end nothing may be left in it."""
    engine = engine_of(executor, **options)
    engine.start()
    try:
        yield engine
        assert_empty(engine)
    finally:
        engine.stop()


def assert_empty(engine: Engine) -> None:
    """No sequence is left and no block is held."""
    assert not engine._scheduler.has_work
    assert engine._scheduler.cache.available == engine.executor.cache_blocks


def torch_executor(architecture: str = "Llama", *, most_tokens: int = 4096) -> TorchExecutor:
    """Return an executor of a tiny model with a cache of so many tokens."""
    return TorchExecutor(tiny_model(architecture), 1 << 26, most_tokens)
