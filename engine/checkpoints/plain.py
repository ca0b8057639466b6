"""Opens the folder of a checkpoint in transformers' own form; nothing in it is ever run."""

from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from engine.checkpoints.families import UnsupportedCheckpoint
from engine.tokenizer import ChatTokenizer, UnsupportedTokenizer


def load_tokenizer(path: Path) -> ChatTokenizer:
    """Read the tokenizer. Raises UnsupportedTokenizer if it is of a kind that is not known."""
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UnsupportedTokenizer(f"{type(tokenizer).__name__} has no tokenizer.json form")
    return ChatTokenizer(tokenizer)


def read_config(path: Path) -> PreTrainedConfig:
    """Return the config. Raises UnsupportedCheckpoint if it says that the weights are quantized."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(
        path, local_files_only=True, trust_remote_code=False
    )
    if method := getattr(config, "quantization_config", None):
        raise UnsupportedCheckpoint(f"its weights are quantized already ({method!s:.80})")
    return config


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model without any memory behind its weights."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, trust_remote_code=False
        )
    return model


def load_weights(path: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Load the weights on the CPU; those that are stored as `dtype` are mapped, not copied.

    Raises UnsupportedCheckpoint if some are missing.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, report = cast(tuple[PreTrainedModel, dict[str, set[str]]], loaded)
    if missing := sorted(report["missing_keys"]):
        raise UnsupportedCheckpoint(f"its files lack {len(missing)} weights, the first of them {missing[0]}")
    return model
