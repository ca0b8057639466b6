"""A checkpoint in a folder, whatever its form: its config, its tokenizer, and its weights to be mapped."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from engine.checkpoints import original, plain
from engine.checkpoints.stored import stored_dtype, weight_files
from engine.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of a checkpoint before its weights are read."""

    path: Path
    config: PreTrainedConfig
    stored_dtype: torch.dtype
    is_original: bool

    @property
    def dtype(self) -> torch.dtype:
        """The type that the checkpoint is meant for, by its config or else by its files."""
        said = self.config.dtype
        return said if isinstance(said, torch.dtype) else self.stored_dtype

    def load_tokenizer(self) -> ChatTokenizer:
        """Read the tokenizer; raises what says why it cannot be used."""
        return original.load_tokenizer(self.path) if self.is_original else plain.load_tokenizer(self.path)

    def skeleton(self) -> PreTrainedModel:
        """Return the model without any memory behind its weights."""
        return original.skeleton(self.config) if self.is_original else plain.skeleton(self.config)

    def map_weights(self) -> PreTrainedModel:
        """Return the model on the CPU, its weights mapped from the files as they are stored."""
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would write into the log's terminal
        load = original.load_weights if self.is_original else plain.load_weights
        return load(self.path, self.config, self.stored_dtype)

    def weight_files(self) -> list[Path]:
        return weight_files(self.path)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read the config and the heads of the weight files.

    Raises UnsupportedCheckpoint, or whatever transformers raises for a config it cannot read.
    """
    is_original = original.is_original(path)
    config = original.read_config(path) if is_original else plain.read_config(path)
    return Checkpoint(path, config, stored_dtype(path), is_original)
