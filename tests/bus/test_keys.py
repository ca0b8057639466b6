import stat

import pytest
import zmq

from bus import wire
from bus.errors import BusError
from bus.keys import BusKeys, read_keys, write_new_keys
from contract import Finished, Hello
from tests.bus.house import CARD, chat


def test_keys_come_back_from_the_file_as_they_were_written(tmp_path):
    path = tmp_path / "bus.keys"
    keys = write_new_keys(path)
    assert read_keys(path) == keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_of_keys_is_never_overwritten(tmp_path):
    keys = write_new_keys(tmp_path / "bus.keys")
    with pytest.raises(BusError, match="exists"):
        write_new_keys(tmp_path / "bus.keys")
    assert read_keys(tmp_path / "bus.keys") == keys


def test_the_secret_is_never_shown(tmp_path):
    keys = write_new_keys(tmp_path / "bus.keys")
    assert keys.secret not in repr(keys)
    assert keys.secret not in str(keys)


@pytest.mark.parametrize(
    "text", ["", "public = 1", "nonsense", 'public = "short"\nsecret = "short"', "\udcff"]
)
def test_a_broken_file_of_keys_is_told(tmp_path, text):
    path = tmp_path / "bus.keys"
    path.write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(BusError, match=r"bus\.keys"):
        read_keys(path)


def test_keys_of_two_pairs_do_not_go_together(tmp_path):
    one, two = write_new_keys(tmp_path / "1"), write_new_keys(tmp_path / "2")
    (tmp_path / "3").write_text(f'public = "{one.public}"\nsecret = "{two.secret}"\n')
    with pytest.raises(BusError, match="do not belong together"):
        read_keys(tmp_path / "3")


def test_a_missing_file_of_keys_is_told(tmp_path):
    with pytest.raises(BusError, match="No such file"):
        read_keys(tmp_path / "nowhere")


def new_keys() -> BusKeys:
    return BusKeys(*(key.decode() for key in zmq.curve_keypair()))


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def a_stranger(name: str, keys: BusKeys) -> BusKeys | None:
    match name:
        case "no key":
            return None
        case "another pair":
            return new_keys()
        case _:  # knows the gateway's public key, but has a pair of its own
            return keys


@pytest.mark.parametrize("name", ["no key", "another pair", "another key"])
def test_only_the_right_key_gets_in_and_strangers_hurt_nobody(house, context, name):
    keys = new_keys()
    gateway = house.gateway("tcp://127.0.0.1:*", keys=keys)
    with context.socket(zmq.DEALER) as dealer, dealer.get_monitor_socket() as monitor:
        dealer.linger = 0
        if (shown := a_stranger(name, keys)) is not None:
            shown.join(dealer)
        if name == "another key":
            dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
        dealer.connect(gateway.endpoint)
        dealer.send(wire.encode(Hello("stranger", CARD, ("chat",), 100, 0)), zmq.NOBLOCK)
        assert was_turned_away(monitor)
        house.worker(gateway, keys=keys)
        assert isinstance(list(gateway.submit(chat()))[-1], Finished)
        assert "stranger" not in {each.worker for each in gateway.workers()}


def was_turned_away(monitor) -> bool:
    """Wait until the connection ends or the handshake fails; False if the handshake succeeded."""
    endings = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    while monitor.poll(5000):
        event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
        if event & (endings | zmq.EVENT_HANDSHAKE_SUCCEEDED):
            return bool(event & endings)
    raise AssertionError("nothing happened")
