"""What must be free and private before a gateway starts: ports, and the folder of the sockets."""

import errno
import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from settings import Address


class CannotListen(Exception):
    """An address or a folder cannot be used; the message says which, why, and what to do."""


def require_free(addresses: Iterable[Address]) -> None:
    """Raise CannotListen unless every address can be listened on."""
    for address in addresses:
        try:
            _try_to_bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CannotListen(
                    f"{address} is in use by another program: end that one, or choose another address"
                ) from None
            raise CannotListen(f"cannot listen on {address}: {error.strerror}") from error


def require_private(folder: Path) -> None:
    """Make the folder if it is not there. Raises CannotListen unless it is ours and closed to others."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise CannotListen(f"cannot make the folder {folder} for sockets: {error.strerror}") from error
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise CannotListen(
            f"{folder} must be a folder of yours with mode 700: whoever enters it may join the bus"
        )


def _try_to_bind(address: Address) -> None:
    """Bind as a server does: with SO_REUSEADDR, which passes over connections that still close."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((address.host, address.port))
