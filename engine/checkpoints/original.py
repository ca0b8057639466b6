"""Opens the folder of an original ChatGLM2, ChatGLM3 or GLM-4 checkpoint; nothing in it is ever run."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from transformers import GenerationConfig, GlmConfig, PreTrainedConfig, PreTrainedModel

from engine.checkpoints.chatglm import ChatGlmForCausalLM, check_weights, glm_config, register_names
from engine.checkpoints.chatglm_tokenizers import build_tokenizer
from engine.checkpoints.families import Family, UnsupportedCheckpoint, family_of
from engine.checkpoints.stored import PLAIN_TYPES, stored_weights
from engine.tokenizer import ChatTokenizer

#: The model type of all original checkpoints; transformers' own are "glm", "glm4" and others.
MODEL_TYPE = "chatglm"

#: Bytes of tokenizer.model that show its form: more than its longest line.
HEAD_BYTES = 4096

Decoded = TypeVar("Decoded")


class _AddedToken(msgspec.Struct):
    content: str


class _TokenizerConfig(msgspec.Struct):
    """What matters of tokenizer_config.json."""

    name_or_path: str | None = None
    tokenizer_class: str | None = None
    added_tokens_decoder: dict[int, _AddedToken] = {}


def is_original(path: Path) -> bool:
    """Whether the folder's config.json is one of the original checkpoints'."""
    config = _decode("config.json", (path / "config.json").read_bytes(), object)
    return isinstance(config, dict) and config.get("model_type") == MODEL_TYPE


def is_original_tokenizer(path: Path) -> bool:
    """Whether the folder holds the tokenizer of one of the original checkpoints, with or without a config."""
    names = (_tokenizer_config(path).tokenizer_class or "", str(_config(path).get("model_type")))
    is_theirs = names[0].startswith("ChatGLM") or names[1] == MODEL_TYPE
    return is_theirs and (path / "tokenizer.model").is_file()


def end_ids(path: Path) -> frozenset[int]:
    """Return the ids that end an answer of the folder's model."""
    return frozenset(_family(path).end_ids)


def load_tokenizer(path: Path) -> ChatTokenizer:
    """Build the tokenizer from tokenizer.model and tokenizer_config.json.

    Raises UnsupportedCheckpoint if the files are missing or are not those of a family that is known.
    """
    family = _family(path)
    added = _tokenizer_config(path).added_tokens_decoder
    further = {id_: token.content for id_, token in added.items()}
    tokenizer = build_tokenizer(path / "tokenizer.model", family, further)
    return ChatTokenizer(tokenizer, contents_apart=family.contents_apart)


def read_config(path: Path) -> GlmConfig:
    """Return Glm's config for the folder; raises UnsupportedCheckpoint for what Glm does not compute."""
    return glm_config(_config(path), _family(path))


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model without any memory behind its weights."""
    assert isinstance(config, GlmConfig)  # what read_config returns
    with torch.device("meta"):
        return ChatGlmForCausalLM(config)


def load_weights(path: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Load the weights on the CPU; those that are stored as `dtype` are mapped, not copied.

    Raises UnsupportedCheckpoint if they are not exactly those that the config asks for.
    """
    assert isinstance(config, GlmConfig)  # what read_config returns
    stored = stored_weights(path)
    for name, weight in stored.items():
        if weight.kind not in PLAIN_TYPES:
            raise UnsupportedCheckpoint(f"{name} is stored as {weight.kind}: quantized weights")
    check_weights({name: weight.shape for name, weight in stored.items()}, config)
    register_names()
    model: PreTrainedModel = ChatGlmForCausalLM.from_pretrained(
        path,
        config=config,
        generation_config=GenerationConfig(eos_token_id=config.eos_token_id),  # type: ignore[no-untyped-call]
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    return model


def _family(path: Path) -> Family:
    model = path / "tokenizer.model"
    if not model.is_file():
        raise UnsupportedCheckpoint("tokenizer.model is missing")
    with model.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    names = [_tokenizer_config(path).name_or_path, _config(path).get("_name_or_path"), path.resolve().name]
    return family_of(head, _tokenizer_config_text(path), [name for name in names if isinstance(name, str)])


def _tokenizer_config(path: Path) -> _TokenizerConfig:
    return _decode("tokenizer_config.json", _tokenizer_config_text(path), _TokenizerConfig)


def _tokenizer_config_text(path: Path) -> bytes:
    file = path / "tokenizer_config.json"
    return file.read_bytes() if file.is_file() else b"{}"


def _config(path: Path) -> dict[str, Any]:
    """Return the config; the folder of a tokenizer alone may have none."""
    if not (path / "config.json").is_file():
        return {}
    return _decode("config.json", (path / "config.json").read_bytes(), dict[str, Any])


def _decode(name: str, text: bytes, kind: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise UnsupportedCheckpoint(f"{name} is not what it must be: {error}") from error
