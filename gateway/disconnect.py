"""Sees that a client hung up, while nothing is being read from it or written to it."""

import socket
from typing import Any, Protocol


class Client(Protocol):
    """Whoever waits for a task."""

    @property
    def is_gone(self) -> bool: ...


class Connection:
    """The client's end of a request, as far as the server shows it."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._socket: socket.socket | None = environ.get("gunicorn.socket")

    @property
    def is_gone(self) -> bool:
        """Whether the client closed its connection; False where the server shows no socket.

        Peeks without waiting. Bytes that are there already (a next request sent ahead) hide a
        hang-up behind them until they are read.
        """
        if self._socket is None:
            return False
        patience = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(patience)
