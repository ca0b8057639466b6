"""How far logits and answers move when weights have fewer bits."""

import contextlib
import copy
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from benchmarks.random_model import SEED, SHAPE
from demo.conversations import Conversations
from demo.topics import load_topics
from engine.executors.quantized import compressed_linear
from engine.loading.linears import LinearForms, linear_layers
from engine.loading.plan import BITS, Tier
from evals.retrieval import CAPACITY, SIZES, classic_questions, held_out_questions, measure
from evals.tally import Tally
from templates import load_tasks
from workers.local import load_local_model
from workers.placement import Placement

ROOT = Path(__file__).parent.parent
EMBEDDED = ROOT / "models" / "demo"

#: Tokens of text that the random model reads: every row of logits is compared.
RANDOM_TOKENS = 256

#: Questions with their answers that the embedded model reads.
CONVERSATIONS = 100


def of_random_model() -> dict[str, Any]:
    """Compare logits on random tokens, with random weights of Qwen2.5-0.5B's shape."""
    torch.manual_seed(SEED)
    exact = Qwen2ForCausalLM(Qwen2Config(**SHAPE)).train(False).bfloat16().float()
    texts = [torch.randint(0, SHAPE["vocab_size"], (RANDOM_TOKENS,)).tolist()]
    return {"tokens": RANDOM_TOKENS, "logits": _compare(exact, texts)}


def of_embedded_model(threads: int, catalogues: int) -> dict[str, Any]:
    """Compare logits on conversations that it was made for, and count what it finds among books."""
    exact = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    texts = list(_conversations())
    return {
        "tokens": sum(map(len, texts)),
        "logits": _compare(exact, texts),
        "books": {str(bits): _books(tier, threads, catalogues) for tier, bits in BITS.items()},
    }


def _conversations() -> Iterator[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    source, random = Conversations(load_topics()), Random(SEED)
    for _ in range(CONVERSATIONS):
        exchange = source.make(random).exchange
        said = [
            {"role": "user", "content": exchange.question},
            {"role": "assistant", "content": exchange.answer},
        ]
        yield tokenizer.encode(tokenizer.apply_chat_template(said, tokenize=False), add_special_tokens=False)


@torch.inference_mode()
def _compare(exact: PreTrainedModel, texts: Sequence[Sequence[int]]) -> dict[str, dict[str, float]]:
    expected = _logits(exact, texts)
    found = {}
    for bits in BITS.values():
        model = copy.deepcopy(exact).bfloat16()
        forms = LinearForms(bits, torch.bfloat16, is_cuda=False)
        for place in linear_layers(model):
            if (own := forms.bits_of(place)) is not None:
                setattr(place.parent, place.attribute, compressed_linear(place.linear, own))
        found[str(bits)] = _distances(_logits(model, texts), expected)
    return found


def _logits(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.cat([model(torch.tensor([text]), use_cache=False).logits[0].float() for text in texts])


def _distances(logits: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    apart = (logits - expected).abs()
    ours, theirs = logits.log_softmax(-1), expected.log_softmax(-1)
    divergence = (theirs.exp() * (theirs - ours)).sum(-1)
    return {
        "standard deviation of float32's": round(expected.std().item(), 3),
        "greatest difference": round(apart.max().item(), 3),
        "mean difference": round(apart.mean().item(), 4),
        "mean divergence": round(divergence.mean().item(), 5),
        "same first choice": round((logits.argmax(-1) == expected.argmax(-1)).float().mean().item(), 4),
    }


def _books(tier: Tier, threads: int, catalogues: int) -> dict[str, float]:
    """Ask for books as the served task does."""
    template = load_tasks(ROOT / "templates")["book_retrieval"]
    placement = Placement(device="cpu", threads=threads, tier=tier, capacity=CAPACITY)
    model = load_local_model(EMBEDDED, EMBEDDED.name, placement)
    random = Random(7)
    questions = [
        *classic_questions(),
        *(question for size in SIZES for question in held_out_questions(size, catalogues, random)),
    ]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where every wrong answer would be printed
            tally: Tally = measure(model, template, questions)
    finally:
        model.close()
    return {
        "wishes": tally.wishes,
        "F1": round(tally.f1, 4),
        "exact answers": round(tally.exact_share, 4),
    }
