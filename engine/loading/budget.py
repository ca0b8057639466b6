"""How much memory a worker may take: what it was told, or a share of what is free."""

from collections.abc import Sequence

from engine.loading.plan import Budget, DoesNotFit
from engine.loading.sizes import gigabytes

#: Share of the machine's free memory that a worker plans with: other programs live there too.
CPU_SHARE = 0.8

#: Share of what the weights leave of it that the cache takes: used pages are not given back, and on a
#: person's own machine a longer memory of old conversations is worth less than room for other programs.
CPU_CACHE_SHARE = 0.25

#: Share of the GPUs' free memory that a worker plans with; the rest is for kernels' own needs and for gaps.
CUDA_SHARE = 0.85


def cpu_budget(asked_bytes: int | None, free_bytes: int) -> Budget:
    """Return what a worker on the CPU may take; `asked_bytes` None stands for a share of what is free."""
    if asked_bytes is None:
        origin = f"{CPU_SHARE:.0%} of the {gigabytes(free_bytes)} that are free"
        return Budget(int(free_bytes * CPU_SHARE), origin, CPU_CACHE_SHARE)
    return _asked(asked_bytes, free_bytes)


def cuda_budget(asked_bytes: int | None, free_bytes: Sequence[int]) -> Budget:
    """Return what a worker may take of all GPUs together. Raises DoesNotFit if there are none."""
    if not free_bytes:
        raise DoesNotFit("there is no GPU that torch can use")
    if asked_bytes is None:
        origin = (
            f"{CUDA_SHARE:.0%} of the {gigabytes(sum(free_bytes))} that are free on {len(free_bytes)} GPU"
        )
        return Budget(int(sum(free_bytes) * CUDA_SHARE), origin)
    return _asked(asked_bytes, sum(free_bytes))


def _asked(asked_bytes: int, free_bytes: int) -> Budget:
    origin = f"--memory {gigabytes(asked_bytes)}"
    if free_bytes < asked_bytes:
        origin = f"of {origin} only {gigabytes(free_bytes)} are free"
    return Budget(min(asked_bytes, free_bytes), origin)
