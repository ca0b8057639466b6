"""The CURVE key pair that gateways and workers share, and the doorkeeper that lets in nobody else."""

import os
import tomllib
from pathlib import Path

import zmq
import zmq.utils.z85
from msgspec import Struct

from bus.errors import BusError

#: Characters of a key as ZeroMQ writes it (Z85: 32 bytes in 40 characters).
_KEY_CHARACTERS = 40

#: Where libzmq asks who may come in, see https://rfc.zeromq.org/spec/27/.
_DOOR = "inproc://zeromq.zap.01"

#: The domain that our sockets name at that door; any word will do, but an empty one switches it off.
_DOMAIN = b"lectern"

#: version, request, domain, address, identity, mechanism, key
_REQUEST_FRAMES = 7


class BusKeys(Struct, frozen=True):
    """One pair for both ends, each key 40 characters of Z85; whoever has the file may join the bus."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"BusKeys(public={self.public!r}, secret=…)"

    def guard(self, socket: "zmq.Socket[bytes]") -> None:
        """Make this, before it binds, the end that checks the other's key."""
        socket.curve_server = True
        socket.curve_secretkey = self.secret.encode()
        socket.zap_domain = _DOMAIN

    def join(self, socket: "zmq.Socket[bytes]") -> None:
        """Make this, before it dials, the end that shows its key and checks the other's."""
        socket.curve_serverkey = self.public.encode()
        socket.curve_publickey = self.public.encode()
        socket.curve_secretkey = self.secret.encode()


class Doorkeeper:
    """Answers libzmq's question who may come in: those with our public key."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", keys: BusKeys) -> None:
        self._key = zmq.utils.z85.decode(keys.public)
        self.socket = context.socket(zmq.REP)
        self.socket.bind(_DOOR)

    def answer(self) -> None:
        """Answer every question that waits."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._verdict(frames), zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.close(linger=0)

    def _verdict(self, frames: list[bytes]) -> list[bytes]:
        request = frames[1] if len(frames) > 1 else b""
        is_known = len(frames) == _REQUEST_FRAMES and frames[5:] == [b"CURVE", self._key]
        status, words = (b"200", b"welcome") if is_known else (b"400", b"unknown key")
        return [b"1.0", request, status, words, b"", b""]


def write_new_keys(path: Path) -> BusKeys:
    """Draw a pair and write it to a new file that only its owner can read. Raises BusError."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BusError(f"cannot write new bus keys to {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write("# Gateways and workers of one house share this file; keep it secret.\n")
        file.write(f'public = "{public}"\nsecret = "{secret}"\n')
    return BusKeys(public, secret)


def read_keys(path: Path) -> BusKeys:
    """Read the pair that `write_new_keys` wrote. Raises BusError, without ever showing a key."""
    try:
        entries = tomllib.loads(path.read_text("ascii"))
    except OSError as error:
        raise BusError(f"cannot read the bus keys {path}: {error.strerror}") from error
    except ValueError:
        raise BusError(f'{path} is no file of bus keys: two lines, public = "…" and secret = "…"') from None
    keys = BusKeys(_checked(entries, "public", path), _checked(entries, "secret", path))
    if not _belong_together(keys):
        raise BusError(f"the two keys in {path} do not belong together")
    return keys


def _checked(entries: dict[str, object], name: str, path: Path) -> str:
    key = entries.get(name)
    if not isinstance(key, str) or len(key.encode()) != _KEY_CHARACTERS:
        raise BusError(f"{name} in {path} is not a key of {_KEY_CHARACTERS} characters")
    return key


def _belong_together(keys: BusKeys) -> bool:
    try:
        return zmq.curve_public(keys.secret.encode()) == keys.public.encode()
    except zmq.ZMQError:
        return False
