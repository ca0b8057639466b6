import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    """Settings of the person who runs the tests do not reach what the tests start."""
    for name in [name for name in os.environ if name.startswith("LECTERN_")]:
        monkeypatch.delenv(name)
