"""Tests on the vendor's simulator: `make test-tpu` sets it up and runs them, other runs leave them out."""

import importlib
import os
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.tpu.bmodels import Reference, provide
from tests.tpu.by_hand import ByHand

HERE = Path(__file__).parent

#: Seconds for a test: the first one with a bmodel compiles it, the first one ever on a machine for minutes.
TEST_SECONDS = 900


def pytest_collection_modifyitems(items):
    not_asked_for = pytest.mark.skip(reason="needs the TPU simulator: make test-tpu")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.tpu_sim)
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
            if os.environ.get("TPU_SIMULATOR") != "required":
                item.add_marker(not_asked_for)


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Tiny models are computed fastest by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
