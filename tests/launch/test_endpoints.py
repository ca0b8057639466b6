import socket

import pytest

from launch import CannotListen, require_free, require_private
from settings import Address


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address("127.0.0.1", server.getsockname()[1])


def test_a_taken_port_is_told_in_one_line(taken):
    with pytest.raises(CannotListen) as caught:
        require_free([taken])
    assert str(caught.value).startswith(f"{taken} is in use")
    assert "\n" not in str(caught.value)


def test_a_free_port_passes_and_stays_free(taken):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = Address("127.0.0.1", server.getsockname()[1])
    require_free([free])
    require_free([free])


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_told(host):
    with pytest.raises(CannotListen, match=f"cannot listen on {host}:8080"):
        require_free([Address(host, 8080)])


def test_the_folder_of_sockets_is_made_for_its_owner_alone(tmp_path):
    folder = tmp_path / "sockets"
    require_private(folder)
    require_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["open to others", "link", "file"])
def test_a_folder_that_others_may_enter_is_refused(tmp_path, kind):
    folder = tmp_path / "sockets"
    if kind == "open to others":
        folder.mkdir(mode=0o755)
    elif kind == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    else:
        folder.write_text("")
    with pytest.raises(CannotListen):
        require_private(folder)


def test_addresses_that_overlap_are_told_before_a_server_fails_on_them():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port} and 0\.0\.0\.0:{port} overlap"):
        require_free([Address("0.0.0.0", port), Address("127.0.0.1", port)])
    require_free([Address("127.0.0.1", port), Address("127.0.0.2", port)])
