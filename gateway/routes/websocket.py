"""WebSocket at `/` and `/ws`, as at any other path: the question server."""

import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Request, Response, request
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request as Handshake
from websockets.protocol import Protocol, Side
from websockets.server import ServerProtocol

from contract import Draining, InvalidRequest, Overloaded, ServingError
from gateway.dialects.websocket import Question, Refusal, parse_frame, render_control, render_failed
from gateway.failures import Caller, log_failure, this_caller
from gateway.keys import check_authorization
from gateway.places import Places
from gateway.questions import Questions
from gateway.streaming import Streams
from gateway.web_socket import WebSocket

logger = logging.getLogger(__name__)

#: Connections at once in one process: what each may leave waiting in memory is bounded, see Questions.
MOST_CONNECTIONS = 128

#: Seconds between two looks at whether the server is shutting down.
LOOK_SECONDS = 0.5


class Upgraded(Response):
    """The answer to a handshake: the whole conversation. Gunicorn is left no response to write."""

    def __init__(self, converse: Callable[[], None]) -> None:
        super().__init__(status=101)
        self._converse = converse

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Return when the connection may be closed, which is what StopIteration tells gunicorn."""
        self._converse()
        raise StopIteration


def answer_websockets(app: Flask, streams: Streams) -> None:
    """Take every request to upgrade, whatever its path, before it is looked for among the routes."""
    places = Places(streams.bus)
    connected: set[WebSocket] = set()

    @app.before_request
    def upgrade() -> Response | None:
        if not wants_websocket(request):
            return None
        if keys := streams.limits.api_keys:  # whatever the path would be open to
            check_authorization(request.headers.get("Authorization", ""), keys)
        greeting = shake_hands(request)
        connection: socket.socket | None = request.environ.get("gunicorn.socket")
        if connection is None:
            raise ServingError("this server hands no connection over")
        if streams.is_draining:
            raise Draining("the server is shutting down")
        if len(connected) >= MOST_CONNECTIONS:
            raise Overloaded(f"{len(connected)} WebSocket connections are open, the limit")
        caller = this_caller()
        protocol = Protocol(Side.SERVER, max_size=streams.limits.body_bytes, logger=_library_logger())
        return Upgraded(lambda: converse(WebSocket(protocol, connection, greeting), caller))

    def converse(client: WebSocket, caller: Caller) -> None:
        connected.add(client)
        conversation = Conversation(streams, places, client, caller)
        try:
            conversation.hold()
        except Exception:  # gunicorn would write an HTTP answer between the frames
            logger.exception("internal error in a WebSocket connection")
        finally:
            conversation.end()
            connected.discard(client)


class Conversation:
    """One client's questions and their replies, until it leaves or the server does."""

    def __init__(self, streams: Streams, places: Places, client: WebSocket, caller: Caller) -> None:
        self._streams = streams
        self._client = client
        self._caller = caller
        self._questions = Questions(streams, places, caller, self, client.send)

    @property
    def is_gone(self) -> bool:
        return not self._client.is_open

    @property
    def is_clogged(self) -> bool:
        return self._client.is_clogged

    def hold(self) -> None:
        while self._client.is_open and not (self._streams.is_draining and self._questions.is_idle):
            if self._questions.is_full or self.is_clogged:
                self._client.pause(LOOK_SECONDS)
                continue
            for frame in self._client.receive(LOOK_SECONDS):
                self._hear(frame)

    def end(self) -> None:
        self._client.close(CloseCode.GOING_AWAY, "the server is shutting down")
        self._questions.close()

    def _hear(self, frame: str | bytes) -> None:
        try:
            said = parse_frame(frame, self._streams.limits)
        except Refusal as refusal:
            log_failure(self._caller, refusal.failed)
            self._client.send(render_failed(refusal.id, refusal.failed))
            return
        if isinstance(said, Question):
            self._questions.add(said)
        else:
            speeds = [worker.speed for worker in self._streams.bus.workers()]
            self._client.send(render_control(said, speeds))


def wants_websocket(asked: Request) -> bool:
    upgrades = asked.headers.get("Upgrade", "").strip().lower() == "websocket"
    connection = asked.headers.get("Connection", "").lower().split(",")
    return upgrades and "upgrade" in (option.strip() for option in connection)


def shake_hands(asked: Request) -> bytes:
    """Return the answer to a handshake that is in order. Raises InvalidRequest."""
    check_origin(asked.headers.get("Origin"), asked.host)
    protocol = ServerProtocol()
    handshake = Handshake(
        asked.path, Headers(list(asked.headers)), asked.method, asked.environ["SERVER_PROTOCOL"]
    )
    answer = protocol.accept(handshake)
    if protocol.handshake_exc is not None:
        raise InvalidRequest(f"WebSocket handshake: {protocol.handshake_exc}")
    return answer.serialize()


def check_origin(origin: str | None, host: str) -> None:
    """Raise InvalidRequest for a page of another site: browsers let any page open a WebSocket."""
    if origin is not None and origin.lower().partition("://")[2] != host.lower():
        raise InvalidRequest("Origin: must be this server's own, got another site's page")


def _library_logger() -> logging.Logger:
    """The library tells of every connection; here only failures leave a line."""
    library = logging.getLogger("websockets.server")
    library.setLevel(logging.WARNING)
    return library
