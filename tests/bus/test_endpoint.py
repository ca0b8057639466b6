import socket
import stat

import pytest

from bus.client import BusClient
from bus.endpoint import check_endpoint
from bus.errors import BusError
from bus.keys import BusKeys
from bus.service import BusService

KEYS = BusKeys("p" * 40, "s" * 40)


@pytest.mark.parametrize(
    "endpoint",
    [
        "ipc:///run/lectern/0.ipc",
        "ipc://here.ipc",
        "tcp://127.0.0.1:5555",
        "tcp://localhost:*",
        "tcp://[::1]:5555",
    ],
)
def test_what_stays_on_this_machine_needs_no_keys(endpoint):
    check_endpoint(endpoint, None)


@pytest.mark.parametrize(
    "endpoint", ["tcp://10.0.0.1:5555", "tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://house:5"]
)
def test_what_leaves_this_machine_needs_keys(endpoint):
    with pytest.raises(BusError, match="keys"):
        check_endpoint(endpoint, None)
    check_endpoint(endpoint, KEYS)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "5555",
        "udp://127.0.0.1:1",
        "inproc://x",
        "tcp://127.0.0.1",
        "tcp://:5",
        "tcp://h:99999",
        "ipc://",
        "ipc://@x",
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint):
    with pytest.raises(BusError, match="endpoint"):
        check_endpoint(endpoint, KEYS)


def test_a_path_that_does_not_fit_is_refused_with_its_length():
    check_endpoint("ipc:///" + "x" * 106, None)
    with pytest.raises(BusError, match="108 bytes, 107 fit"):
        check_endpoint("ipc:///" + "x" * 107, None)
    with pytest.raises(BusError, match="109 bytes"):
        check_endpoint("ipc:///" + "函" * 36, None)


def test_the_folder_is_private_and_the_socket_file_goes_with_the_gateway(tmp_path):
    path = tmp_path / "run" / "0.ipc"
    client = BusClient(f"ipc://{path}")
    assert path.is_socket()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    client.start()
    client.stop()
    assert not path.exists()


def test_two_gateways_cannot_listen_at_one_place(tmp_path):
    first = BusClient(f"ipc://{tmp_path}/0.ipc")
    with pytest.raises(BusError, match="another gateway"):
        BusClient(f"ipc://{tmp_path}/0.ipc")
    first.stop()
    second = BusClient(f"ipc://{tmp_path}/0.ipc")
    second.stop()


def test_a_taken_port_fails_where_the_client_is_made():
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(BusError, match=r"cannot bind.*in use"),
    ):
        BusClient(f"tcp://127.0.0.1:{taken.getsockname()[1]}")


def test_a_file_that_a_dead_gateway_left_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/0.ipc")
    BusClient(f"ipc://{tmp_path}/0.ipc").stop()
    assert not (tmp_path / "0.ipc").exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    (tmp_path / "0.ipc").write_text("mine")
    with pytest.raises(BusError, match="no socket"):
        BusClient(f"ipc://{tmp_path}/0.ipc")
    assert (tmp_path / "0.ipc").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BusError, match="folder"):
        BusClient(f"ipc://{tmp_path}/file/0.ipc")


def test_a_worker_checks_every_endpoint_before_it_dials():
    with pytest.raises(BusError, match="at least one"):
        BusService([])
    with pytest.raises(BusError, match="keys"):
        BusService(["tcp://127.0.0.1:1", "tcp://10.0.0.1:1"])
    with pytest.raises(BusError, match="twice"):
        BusService(["tcp://127.0.0.1:1", "tcp://127.0.0.1:1"])
