"""The weights in a folder's safetensors files, as their heads describe them; no weight is read."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from engine.checkpoints.families import UnsupportedCheckpoint

#: Types of weights that are numbers as they are; others are quantized.
PLAIN_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight as a file holds it; its type by safetensors' own name."""

    shape: tuple[int, ...]
    kind: str


class _WeightIndex(msgspec.Struct):
    """model.safetensors.index.json: which file, in the same folder, holds which weight."""

    weight_map: dict[str, Annotated[str, msgspec.Meta(pattern=r"^[^/\\]+$")]]


def stored_weights(path: Path) -> dict[str, StoredWeight]:
    """Return all weights by name. Raises UnsupportedCheckpoint if files are missing or damaged."""
    weights: dict[str, StoredWeight] = {}
    for file in weight_files(path):
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 - not a mapping
                    part = stored.get_slice(name)
                    weights[name] = StoredWeight(tuple(part.get_shape()), part.get_dtype())
        except SafetensorError as error:
            raise UnsupportedCheckpoint(f"{file.name} is damaged: {error}") from error
    return weights


def stored_dtype(path: Path) -> torch.dtype:
    """Return the type of most of the weights: what the files can be mapped as without a copy."""
    tally: dict[torch.dtype, int] = {}
    for weight in stored_weights(path).values():
        if dtype := PLAIN_TYPES.get(weight.kind):
            tally[dtype] = tally.get(dtype, 0) + math.prod(weight.shape)
    if not tally:
        raise UnsupportedCheckpoint("its files hold no weights in 16 or 32 bit")
    return max(tally, key=tally.__getitem__)


def weight_files(path: Path) -> list[Path]:
    """Return the files that hold the weights. Raises UnsupportedCheckpoint if one is missing."""
    index = path / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(_read_index(index).weight_map.values())
    files = [path / name for name in sorted(names)]
    if not any(file.is_file() for file in files) and any(path.glob("*.bin")):
        raise UnsupportedCheckpoint(
            "its weights are in *.bin files, which can hold code; safetensors are needed"
        )
    for file in files:
        if not file.is_file():
            raise UnsupportedCheckpoint(f"{file.name} is missing")
    return files


def _read_index(file: Path) -> _WeightIndex:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_WeightIndex)
    except msgspec.DecodeError as error:
        raise UnsupportedCheckpoint(f"{file.name} is not what it must be: {error}") from error
