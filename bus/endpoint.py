"""Where a bus may listen or dial: endpoints are checked, socket files made and removed."""

import ipaddress
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from bus.errors import BusError
from bus.keys import BusKeys

#: Bytes that a Unix socket's path may have: sun_path holds 108 with the closing zero (man 7 unix).
MAX_PATH_BYTES = 107

#: Seconds to find out whether somebody listens on a socket file that is already there.
_KNOCK_SECONDS = 1.0


def check_endpoint(endpoint: str, keys: BusKeys | None) -> None:
    """Raise BusError unless the endpoint is ipc://PATH, or tcp://HOST:PORT with keys or on loopback."""
    if endpoint.startswith("ipc://"):
        _check_path(endpoint.removeprefix("ipc://"))
    elif endpoint.startswith("tcp://"):
        _check_address(endpoint, keys)
    else:
        raise BusError(f"bus endpoint {endpoint!r} must start with ipc:// or tcp://")


def is_guarded(endpoint: str, keys: BusKeys | None) -> bool:
    """Tell whether both ends use CURVE there: files have permissions, the network has not."""
    return keys is not None and endpoint.startswith("tcp://")


def make_room(endpoint: str) -> None:
    """Create the socket file's folder (mode 0700) and remove a file that a dead process left.

    Raises BusError if somebody listens there, or if something else has that name.
    """
    if not endpoint.startswith("ipc://"):
        return
    path = Path(endpoint.removeprefix("ipc://"))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BusError(f"cannot create the folder of bus endpoint {endpoint}: {error.strerror}") from error
    if path.exists():
        if not path.is_socket():
            raise BusError(f"bus endpoint {endpoint}: the file is there and is no socket")
        if _is_answering(path):
            raise BusError(f"bus endpoint {endpoint}: another gateway listens there")
        path.unlink(missing_ok=True)


def remove_socket_file(endpoint: str) -> None:
    """Remove what binding left in the file system."""
    if endpoint.startswith("ipc://"):
        with suppress(OSError):  # the folder may be gone already; then there is nothing to remove
            Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)


def _check_path(path: str) -> None:
    if not path or path[0] in "@*":
        raise BusError(f"bus endpoint 'ipc://{path}' must name a file")
    length = len(path.encode())
    if length > MAX_PATH_BYTES:
        raise BusError(f"bus endpoint 'ipc://{path}': the path has {length} bytes, {MAX_PATH_BYTES} fit")


def _check_address(endpoint: str, keys: BusKeys | None) -> None:
    parts = urlsplit(endpoint.replace(":*", ":0"))
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise BusError(f"bus endpoint {endpoint!r} must be tcp://HOST:PORT")
    if keys is None and not _is_loopback(host):
        raise BusError(f"bus endpoint {endpoint!r} leaves this machine: it needs a file of bus keys")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_answering(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.settimeout(_KNOCK_SECONDS)
        try:
            visitor.connect(str(path))
        except OSError:
            return False
    return True
