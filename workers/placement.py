"""How a model is to be loaded and run: what a person can choose about it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs and how much it may take.

    `device` is auto, cpu or cuda; `threads` 0 leaves the choice to torch; `memory_bytes` None stands
    for what is measured to be free; `context_tokens` 0 takes the checkpoint's own limit; `capacity`
    answers run at the same time. `executor` is the native step for CPUs, torch, or auto: the first that can.
    """

    device: str = "auto"
    threads: int = 0
    tier: Literal["auto", "large", "medium", "small"] = "auto"
    memory_bytes: int | None = None
    context_tokens: int = 0
    capacity: int = 64
    executor: Literal["auto", "native", "torch"] = "auto"


@dataclass(frozen=True, slots=True)
class Board:
    """Where a bmodel runs: its chips, which share its work, and the folder of its tokenizer.

    `token_config` None stands for the folder that the compiler makes beside the bmodel.
    """

    token_config: Path | None
    chips: tuple[int, ...]
