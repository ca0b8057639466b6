"""One HTTP request to an upstream: sent and read by a thread of its own, given up at once when closed."""

import logging
import queue
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from contract import OutputError, UpstreamDown

logger = logging.getLogger(__name__)

#: Bytes that are taken from the connection at once, at most.
_READ_BYTES = 64 * 1024

#: Pieces that may wait for the reader; then the upstream waits.
_PIECES = 64

#: Bytes of the longest response: far above any answer.
RESPONSE_BYTES = 256 * 1024 * 1024

#: Seconds that the thread waits for room; the reader takes pieces several times a second, or closes.
_HAND_OVER_SECONDS = 60.0

#: Connections that are kept for the next request, to one host.
_KEPT_CONNECTIONS = 64

#: Guards which exchange a connection belongs to: it may be in use for another one already.
_owners = threading.Lock()

#: The exchange for which this thread sends and reads.
_here = threading.local()


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; `seconds_to_connect` and `seconds_of_silence` bound what the network may take."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    seconds_to_connect: float
    seconds_of_silence: float


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a response, whatever it says; the names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]


#: What a thread hands over: a head, then pieces, then None for the end or what broke.
_Heard = Head | bytes | Exception | None


class Exchange:
    """A request under way; whoever opened it closes it."""

    def __init__(self, session: requests.Session, request: Request) -> None:
        self._session = session
        self._request = request
        self._heard: queue.Queue[_Heard] = queue.Queue(_PIECES)
        self._connection: _Watched | None = None
        self._socket: socket.socket | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    def read(self, tick_seconds: float) -> Generator[Head | bytes | None, None, None]:
        """Yield the head and the pieces of the body, None after each tick without anything.

        Closing it closes the connection at once. Raises UpstreamDown if the connection breaks.
        """
        self._thread.start()
        try:
            while (heard := self._next(tick_seconds)) is not _END:
                yield heard
        finally:
            self._close()

    def hold(self, connection: "_Watched") -> None:
        """Called by the connection before it is used for this exchange."""
        with _owners:
            if self._is_closed:
                raise ConnectionAbortedError("nobody waits for the answer any more")
            self._connection = connection
            # Kept, as the connection forgets its socket once it knows that it will not be used again.
            self._socket = connection.sock or self._socket
            connection.owner = self

    def _next(self, tick_seconds: float) -> Any:
        try:
            heard = self._heard.get(timeout=tick_seconds)
        except queue.Empty:
            return None
        if heard is None:
            self._connection = None  # it may serve another exchange already
            return _END
        if isinstance(heard, OutputError):
            raise heard
        if isinstance(heard, Exception):
            raise UpstreamDown(f"the connection to the upstream broke: {_in_short(heard)}") from heard
        return heard

    def _close(self) -> None:
        with _owners:
            self._is_closed = True
            connection = self._connection
            if connection is not None and connection.owner is self and self._socket is not None:
                with suppress(OSError):  # below any TLS, whose own farewell would wait for the other side
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        with suppress(queue.Empty):
            while True:
                self._heard.get_nowait()

    # What follows runs in the exchange's own thread.

    def _run(self) -> None:
        _here.exchange = self
        try:
            self._send_and_read()
            self._say(None)
        except (requests.RequestException, HTTPError, OSError, OutputError) as error:
            self._say(error)
        except Exception as error:  # whatever a broken response makes the libraries raise
            logger.exception("The response of the upstream cannot be read")
            self._say(error)

    def _send_and_read(self) -> None:
        asked = self._request
        with self._session.request(
            asked.method,
            asked.url,
            data=asked.body,
            headers=dict(asked.headers),
            stream=True,
            timeout=(asked.seconds_to_connect, asked.seconds_of_silence),
            allow_redirects=False,  # they would take the key elsewhere
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            self._say(Head(response.status_code, headers))
            size = 0
            while piece := response.raw.read1(_READ_BYTES, decode_content=True):
                size += len(piece)
                if size > RESPONSE_BYTES:
                    raise OutputError(f"the upstream's response has more than {RESPONSE_BYTES} bytes")
                self._say(piece)

    def _say(self, heard: _Heard) -> None:
        if self._is_closed:
            return
        try:
            self._heard.put(heard, timeout=_HAND_OVER_SECONDS)
        except queue.Full:
            logger.warning("Nobody read the upstream's response for %.0f s", _HAND_OVER_SECONDS)
            self._close()


#: What `_next` returns behind the last piece.
_END = object()


class _Watched(HTTPConnection):
    """A connection that knows for whom it is used, so that it can be closed under a waiting thread."""

    owner: Exchange | None = None

    def connect(self) -> None:
        super().connect()
        _here.exchange.hold(self)

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        _here.exchange.hold(self)
        super().putrequest(*arguments, **options)


class _WatchedTLS(_Watched, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _PoolTLS(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}


def open_session() -> requests.Session:
    """Return a session for exchanges. It reads no environment: no proxy, no netrc."""
    session = requests.Session()
    session.trust_env = False
    adapter = _Adapter(pool_maxsize=_KEPT_CONNECTIONS)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _in_short(error: Exception) -> str:
    """Say what broke in few words: the libraries wrap it several times, with addresses of objects."""
    while isinstance(inner := error.__cause__ or error.__context__, Exception):
        error = inner
    return str(error) or type(error).__name__
