"""A house, or a gateway that says what the test says, for every test that asks for one."""

import pytest
import zmq

from tests.bus.house import House
from tests.workers.gateways import Gateway


@pytest.fixture
def house(tmp_path_factory):
    with House(tmp_path_factory.mktemp("bus")) as house:
        yield house


@pytest.fixture
def gateway(tmp_path_factory):
    with zmq.Context() as context:
        gateway = Gateway(context, f"ipc://{tmp_path_factory.mktemp('bus')}/0.ipc")
        yield gateway
        gateway.socket.close()
