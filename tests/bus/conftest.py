"""A house, or a dispatcher and its line, for every test that asks for one."""

import pytest

from bus.dispatcher import Dispatcher
from bus.roster import Roster
from tests.bus.dispatching import Line
from tests.bus.house import House


@pytest.fixture
def house(tmp_path_factory):
    with House(tmp_path_factory.mktemp("bus")) as house:
        yield house


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def dispatcher(line):
    return Dispatcher(Roster(first_beat=0), line)
