import pytest

from gateway import create_app
from tests.gateway.memory_bus import MemoryBus


@pytest.fixture
def bus():
    return MemoryBus()


@pytest.fixture
def client(bus):
    return create_app(bus).test_client()
