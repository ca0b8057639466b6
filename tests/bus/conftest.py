"""A house for every test that asks for one."""

import pytest

from tests.bus.house import House


@pytest.fixture
def house(tmp_path_factory):
    with House(tmp_path_factory.mktemp("bus")) as house:
        yield house
