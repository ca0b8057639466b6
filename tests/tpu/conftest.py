"""Tests on the vendor's simulator; they need what `make test-tpu` sets up."""

import importlib
import os
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.tpu.bmodels import HOME, Reference, provide
from tests.tpu.by_hand import ByHand

HERE = Path(__file__).parent

#: Seconds for a test: the first one with a bmodel compiles it.
TEST_SECONDS = 900


def pytest_collection_modifyitems(items):
    missing = pytest.mark.skip(reason="the TPU simulator is not set up: make test-tpu")
    is_missing = not (HOME / "ready").exists() and os.environ.get("TPU_SIMULATOR") != "required"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.tpu_sim)
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
            if is_missing:
                item.add_marker(missing)


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Tiny models are computed fastest by one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="package")
def sail():
    """The shim, in the place of the vendor's package for as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        yield importlib.import_module("sophon.sail")
    for name in [name for name in sys.modules if name.split(".")[0] == "sophon"]:
        del sys.modules[name]


@pytest.fixture(scope="package")
def by_hand(sail):
    """Return a recipe's bmodel, loaded once for all tests."""
    return cache(lambda recipe: ByHand(sail, provide(recipe).bmodel))


@pytest.fixture(scope="package")
def reference():
    """Return transformers' model of a recipe, loaded once for all tests."""
    return cache(lambda recipe: Reference(provide(recipe)))
