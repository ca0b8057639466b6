"""What holds for every test of the engine."""

from copy import deepcopy

import pytest
import torch

import engine.engine
from engine.executors.torch_executor import TorchExecutor
from tests.engine.parts import native_executor, plain_model


@pytest.fixture(scope="package", autouse=True)
def _quick_small_steps():
    """Tiny models are computed fastest by one thread; an idle engine is stopped without a long wait."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.engine, "IDLE_SECONDS", 0.02)
        yield


@pytest.fixture(params=["torch", "native"])
def executor_of(request):
    """Makes an executor of an architecture's plain model: what holds for the engine holds on each."""

    def make(architecture="Llama", *, most_tokens=4096):
        if request.param == "native":
            return native_executor(architecture, most_tokens=most_tokens)
        return TorchExecutor(deepcopy(plain_model(architecture)), 1 << 26, most_tokens)

    return make
