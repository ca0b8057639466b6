"""A model of Qwen2.5-0.5B's shape with random weights: `python -m benchmarks.random_model --help`.

Speed does not depend on what the weights are, so a measurement needs no download.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

#: Qwen2.5-0.5B-Instruct's, from its config.json: https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct
SHAPE: dict[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "vocab_size": 151_936,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "max_window_layers": 21,
}

#: The same with few and small layers, for trying the commands out: 2 MB with a small tokenizer.
TINY: dict[str, Any] = SHAPE | {"hidden_size": 56, "intermediate_size": 112, "num_hidden_layers": 2}

#: So that everybody measures the same model.
SEED = 0


def write_model(folder: Path, tokenizer_folder: Path, shape: dict[str, Any], seed: int = SEED) -> None:
    """Write a checkpoint in bfloat16 and its tokenizer into the folder.

    Raises ValueError if the tokenizer does not fit the shape or knows no end of an answer.
    """
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    if tokenizer.eos_token_id is None or len(tokenizer) > shape["vocab_size"]:
        raise ValueError(f"the tokenizer has {len(tokenizer)} ids and its end is {tokenizer.eos_token_id}")
    torch.manual_seed(seed)
    config = Qwen2Config(**shape, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, dtype="bfloat16")
    model = Qwen2ForCausalLM(config).bfloat16()
    # No defaults for sampling: every server would take others of them to heart.
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> int:
    """Write the model that the flags describe, unless the folder holds one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_model", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Hugging Face tokenizer")
    parser.add_argument("--tiny", action="store_true", help="two small layers, to try the commands out")
    options = parser.parse_args()
    if (options.folder / "config.json").exists():
        print(f"{options.folder} holds a model already")
        return 0
    try:
        write_model(options.folder, options.tokenizer, TINY if options.tiny else SHAPE)
    except (OSError, ValueError) as error:
        print(f"random_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
