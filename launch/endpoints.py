"""What must be free and private before a gateway starts: ports, and the folder of the sockets."""

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from settings import Address


class CannotListen(Exception):
    """An address or a folder cannot be used; the message says which, why, and what to do."""


def require_free(addresses: Iterable[Address]) -> None:
    """Raise CannotListen unless every address can be listened on, all of them at the same time."""
    with ExitStack() as trials:
        tried: list[Address] = []
        for address in addresses:
            try:
                trials.enter_context(_listen(address))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise CannotListen(f"cannot listen on {address}: {error.strerror}") from error
                raise CannotListen(_taken(address, tried)) from None
            tried.append(address)


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


def _listen(address: Address) -> socket.socket:
    """Listen as a server does: with SO_REUSEADDR, which passes over connections that still close."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family)


def _taken(address: Address, tried: Iterable[Address]) -> str:
    for other in tried:
        if other.port == address.port:
            return f"{address} and {other} overlap: leave one of them out"
    return f"{address} is in use by another program: end that one, or choose another address"
