"""Tiny random checkpoints, and bmodels made of them by the vendor's compiler, kept in var/tpu/bmodels."""

import hashlib
import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.tiny_checkpoints import byte_level_tokenizer

ROOT = Path(__file__).parents[2]

#: What `make test-tpu` sets up.
HOME = ROOT / "var" / "tpu"

#: The tokenizer of the embedded model: it knows the book task's words, so that its prompt is short.
DEMO = ROOT / "models" / "demo"

#: Seconds in which a bmodel must be made; 10 to 20 were seen, and minutes with a compiler never used before.
COMPILE_SECONDS = 600

ARCHITECTURES = {
    "Qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "Qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "Llama": (LlamaConfig, LlamaForCausalLM),
}


@dataclass(frozen=True)
class Recipe:
    """Which model, and how it is compiled; equal recipes give equal files."""

    architecture: str
    quantize: str = "bf16"
    flags: tuple[str, ...] = ("--do_sample",)
    length: int = 64
    tokenizer: str = "bytes"
    seed: int = 5

    def __str__(self):
        return "-".join((self.architecture, self.quantize, *(flag.strip("-") for flag in self.flags)))

    @property
    def folder(self):
        told = json.dumps({**asdict(self), "made_by": MADE_BY}, sort_keys=True)
        return HOME / "bmodels" / f"{self.architecture}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    @property
    def vocabulary_size(self):
        return json.loads((self.checkpoint / "config.json").read_text())["vocab_size"]

    @property
    def bmodel(self):
        return self.folder / "model.bmodel"

    @property
    def checkpoint(self):
        return self.folder / "checkpoint"


#: Goes into the hash: raised when what `write_checkpoint` makes changes.
MADE_BY = 1

#: Logits, static prefill: the plainest that constraints work with.
PLAIN = Recipe("Qwen2")
#: The head gives ids alone.
IDS_ONLY = Recipe("Qwen3", flags=())
#: The other 16-bit format; prefill costs what it takes.
DYNAMIC_F16 = Recipe("Llama", "f16", ("--do_sample", "--dynamic"))
#: Prefill of 16 tokens at a time, behind what is known.
HISTORY = Recipe("Qwen3", flags=("--do_sample", "--use_history_kv", "--chunk_length", "16"))
#: Weights of four bits.
FOUR_BITS = Recipe("Qwen2", "w4bf16")
#: Prefill of half the context at most, all at once.
NARROW = Recipe("Llama", flags=("--max_input_length", "32"))
#: Room for the book task's prompt of forty tokens and an answer. Most seeds answer that task with `{}`; with
#: this one, two of the rows of test_serving.py are chosen, each step by at least 3.
BOOKS = Recipe(
    "Qwen3",
    flags=("--do_sample", "--use_history_kv", "--chunk_length", "32"),
    length=96,
    tokenizer="demo",
    seed=41,
)

RECIPES = (PLAIN, IDS_ONLY, DYNAMIC_F16, HISTORY, FOUR_BITS, NARROW, BOOKS)


def provide(recipe):
    """Return the recipe, its checkpoint and bmodel made if they are not there yet."""
    if not recipe.bmodel.exists():
        write_checkpoint(recipe)
        command = [ROOT / "scripts" / "compile_bmodel.sh", recipe.checkpoint, recipe.bmodel]
        options = ["-s", str(recipe.length), "-q", recipe.quantize, "-c", "bm1684x", *recipe.flags]
        subprocess.run(
            [*command, *options],
            check=True,
            timeout=COMPILE_SECONDS,
            stdin=subprocess.DEVNULL,
            env=_environ(),
        )
    return recipe


def write_checkpoint(recipe):
    """Two layers of random weights, in the 16-bit format that they are computed in, and a tokenizer."""
    make_config, make_model = ARCHITECTURES[recipe.architecture]
    tokenizer = AutoTokenizer.from_pretrained(DEMO) if recipe.tokenizer == "demo" else byte_level_tokenizer()
    config = make_config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=recipe.length,
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(recipe.seed)
    model = make_model(config).eval()
    model.to(torch.float16 if recipe.quantize == "f16" else torch.bfloat16)
    model.save_pretrained(recipe.checkpoint)
    tokenizer.save_pretrained(recipe.checkpoint)


class Reference:
    """transformers' own answer, in float32."""

    def __init__(self, recipe):
        self.model = AutoModelForCausalLM.from_pretrained(recipe.checkpoint, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logits(self, ids):
        """Return the logits behind the last token."""
        return self.model(torch.tensor([list(ids)])).logits[0, -1].numpy()

    def greedy(self, prompt, count):
        """Return the next tokens and the smallest margin by which one of them was chosen."""
        ids, margins = list(prompt), []
        for _ in range(count):
            logits = self.logits(ids)
            second, first = numpy.partition(logits, -2)[-2:]
            margins.append(float(first - second))
            ids.append(int(logits.argmax()))
        return ids[len(prompt) :], min(margins)

    def sure_prompt(self, length, count, margin, seed=0):
        """Return a random prompt behind which the next tokens are chosen by at least this margin."""
        random = numpy.random.default_rng(seed)
        for _ in range(PROMPTS_TRIED):
            prompt = random.integers(1, 250, length).tolist()
            tokens, found = self.greedy(prompt, count)
            if found >= margin:
                return prompt, tokens
        raise AssertionError(f"none of {PROMPTS_TRIED} prompts has a margin of {margin}")


#: Random prompts tried in search of one whose answer is beyond doubt.
PROMPTS_TRIED = 500


def _environ():
    """What the compiler may know of the tests: nothing of Python's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


if __name__ == "__main__":
    for one in RECIPES:
        print(provide(one).bmodel)  # noqa: T201
