"""How much memory packed weights will need, guessed before any library is there that could read them."""

import json
from pathlib import Path
from typing import Literal

from engine.loading.free_memory import free_cpu_bytes
from engine.loading.plan import BITS, Tier

#: Where NVIDIA's driver says that it is there.
GPU_DRIVER = Path("/proc/driver/nvidia/version")

#: By how much packed weights may be larger than stored ones: their columns fill whole panels.
PANEL_SHARE = 1 / 64

#: Share of the free memory that is taken on a guess; what is more is left to the plan.
GUESSED_SHARE = 0.5


def expected_bytes(
    folder: Path,
    tier: Tier | Literal["auto"],
    *,
    device: str,
    executor: str,
    memory_bytes: int | None,
) -> int:
    """Return what the weights in a folder will take for the native step; 0 if it will hardly be used.

    The arguments are as in a placement: `memory_bytes` None stands for what is free.
    """
    is_on_gpu = device == "cuda" or (device == "auto" and GPU_DRIVER.exists())
    if is_on_gpu or executor == "torch" or tier == "small":
        return 0
    if _is_meant_for_32_bits(folder):
        return 0
    stored_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.is_file())
    bits = BITS["large" if tier == "auto" else tier]
    needed = int(stored_bytes * bits / 16 * (1 + PANEL_SHARE))
    free_bytes = free_cpu_bytes() if memory_bytes is None else min(memory_bytes, free_cpu_bytes())
    return needed if needed <= free_bytes * GUESSED_SHARE else 0


def _is_meant_for_32_bits(folder: Path) -> bool:
    """Whether the config says so; one that cannot be read is told of by whoever needs it."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "float32" in (config.get("dtype"), config.get("torch_dtype"))
