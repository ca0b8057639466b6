"""GLM-4-9B's shape with random weights in memory, and how fast the device's memory is read."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, GlmConfig, GlmForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from engine.tokenizer import ChatTokenizer
from grammar import Vocabulary

#: The tokenizer that is in the repository; the model's further ids stand for no text.
TOKENIZER = Path(__file__).resolve().parent.parent / "models" / "demo"

#: Times that the memory is read; the best is taken, for nothing can make it look faster than it is.
BANDWIDTH_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Workload:
    """How much is measured: streams at once, tokens of their prompts and answers, rounds of book tasks."""

    streams: int
    prompt_tokens: int
    answer_tokens: int
    context_tokens: int
    rounds: int
    bandwidth_bytes: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A Glm model and what it is measured with."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    workload: Workload


#: https://huggingface.co/zai-org/glm-4-9b-chat-hf, config.json
GLM_4_9B = ModelShape(
    name="GLM-4-9B, random bfloat16 weights",
    hidden=4096,
    intermediate=13696,
    layers=40,
    heads=32,
    key_heads=2,
    head_size=128,
    vocabulary=151_552,
    workload=Workload(
        streams=64,
        prompt_tokens=128,
        answer_tokens=256,
        context_tokens=4096,
        rounds=7,
        bandwidth_bytes=4 << 30,
    ),
)

#: Small enough to try the command out within seconds on any machine.
TINY = ModelShape(
    name="tiny, random bfloat16 weights",
    hidden=64,
    intermediate=128,
    layers=2,
    heads=4,
    key_heads=2,
    head_size=16,
    vocabulary=16_384,
    workload=Workload(
        streams=3, prompt_tokens=8, answer_tokens=4, context_tokens=1536, rounds=1, bandwidth_bytes=1 << 24
    ),
)


def make_model(shape: ModelShape, device: torch.device) -> PreTrainedModel:
    """Make the weights on the device itself."""
    config = GlmConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_size,
        attention_bias=True,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        dtype="bfloat16",
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model: PreTrainedModel = GlmForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def bytes_per_token(model: PreTrainedModel) -> int:
    """Return the bytes of weights that one row reads: all but the table of input tokens."""
    table = model.get_input_embeddings().weight
    weights = {id(weight): weight for weight in model.parameters() if weight is not table}
    return sum(weight.numel() * weight.element_size() for weight in weights.values())


def bandwidth(device: torch.device, size: int) -> float:
    """Return bytes per second: the best of reading (a sum) and of copying, over a buffer of so many bytes."""
    source = torch.ones(size // 2, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    rows = source.view(-1, 1 << 12)
    best = 0.0
    for _ in range(BANDWIDTH_ROUNDS):
        best = max(best, size / _seconds(lambda: rows.sum(dim=1), device))
        best = max(best, 2 * size / _seconds(lambda: target.copy_(source), device))
    return best


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def load_tokenizer() -> ChatTokenizer:
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return ChatTokenizer(tokenizer)


def padded(vocabulary: Vocabulary, size: int) -> Vocabulary:
    """Return the vocabulary with ids without text up to the size, so that choosing costs what it would."""
    return Vocabulary([*vocabulary.tokens, *[None] * (size - len(vocabulary))], vocabulary.spell)
