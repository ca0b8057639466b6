"""Sampling noise as a function of (seed, choice, position), so that an answer can be continued anywhere."""

import numpy as np


def uniform(seed: int, choice: int, position: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments.

    Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): the key is
    (seed, choice), the counter is the position.
    """
    return float(
        np.random.Generator(np.random.Philox(key=[seed, choice], counter=[position, 0, 0, 0])).random()
    )
