"""What holds for every test of the engine."""

import pytest
import torch

import engine.engine


@pytest.fixture(scope="package", autouse=True)
def _quick_small_steps():
    """Tiny models are computed fastest by one thread; an idle engine is stopped without a long wait."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.engine, "IDLE_SECONDS", 0.02)
        yield
