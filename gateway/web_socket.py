"""A WebSocket on a connection that the server has handed over: whole messages in, whole frames out.

The protocol itself is the library's (RFC 6455); here its bytes meet the socket. One thread receives. Any
thread may send: what it leaves is written by a thread of its own, so that a client that does not read
keeps nobody from hearing what it says.
"""

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, Protocol, State

logger = logging.getLogger(__name__)

#: Bytes read at once.
READ_BYTES = 64 * 1024

#: Bytes that may wait for a client to read them before it is asked nothing more: 20,000 short answers.
CLOGGED_BYTES = 4 * 1024 * 1024

#: Bytes written at once: the time that a client may take for them is the socket's.
WRITE_BYTES = 64 * 1024

#: Seconds of silence after which the client is asked whether it is there, and after which it is not.
PING_SECONDS, SILENCE_SECONDS = 20.0, 60.0

#: Seconds for the last words and for the client's own good-bye.
CLOSE_SECONDS = 5.0


class WebSocket:
    """Ends when either side closes it, when the client is silent or reads nothing, or breaks the protocol.

    `greeting` is the answer to the client's handshake; from there on, `protocol` has the word.
    """

    def __init__(self, protocol: Protocol, connection: socket.socket, greeting: bytes) -> None:
        self._protocol = protocol
        self._socket = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._changed = threading.Condition()
        self._outbox = bytearray(greeting)
        self._is_ending = False  # nothing more will be left to the writer
        self._is_over = False  # nothing more can be written
        self._message = bytearray()
        self._message_is_text = False
        self._heard_at = self._asked_at = time.monotonic()
        self._writer = threading.Thread(target=self._write, name="websocket-writer", daemon=True)
        self._writer.start()

    @property
    def is_open(self) -> bool:
        """Whether something may still come from the client, and be said to it."""
        return self._protocol.state is State.OPEN and not self._is_over

    @property
    def is_clogged(self) -> bool:
        """Whether the client has left so much unread that it should not be given more to read."""
        return len(self._outbox) >= CLOGGED_BYTES

    def send(self, text: str) -> None:
        """Send a text frame; what is said to a closed connection is lost with it."""
        with self._changed:
            if self._protocol.state is State.OPEN:
                self._protocol.send_text(text.encode())
                self._post()

    def receive(self, seconds: float) -> Iterator[str | bytes]:
        """Yield what came within that time: a text's characters, or the bytes of what is no text."""
        if not self._poll.poll(int(seconds * 1000) + 1):
            self._look_after_silence()
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except OSError as error:
            logger.debug("A connection was cut: %s", error)
            data = b""
        self._heard_at = time.monotonic()
        with self._changed:
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            self._post()
        for frame in self._protocol.events_received():
            if isinstance(frame, Frame):
                yield from self._assemble(frame)

    def pause(self, seconds: float) -> None:
        """Hear nothing for a moment, which then is not the client's silence."""
        with self._changed:
            if not self._is_over:
                self._changed.wait(seconds)
        self._heard_at = time.monotonic()

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Say good-bye, if that was not done; wait a little for the client's own, and for the last words."""
        with self._changed:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(code, reason)
                self._post()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._protocol.state is not State.CLOSED and (left := deadline - time.monotonic()) > 0:
            for message in self.receive(left):
                logger.debug("A message of %d characters came too late", len(message))
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._writer.join(CLOSE_SECONDS)

    def _look_after_silence(self) -> None:
        now = time.monotonic()
        with self._changed:
            if self._protocol.state is not State.OPEN:
                return
            if now - self._heard_at >= SILENCE_SECONDS:
                self._protocol.fail(CloseCode.INTERNAL_ERROR, "the client gave no sign of life")
            elif now - max(self._heard_at, self._asked_at) >= PING_SECONDS:
                self._asked_at = now
                self._protocol.send_ping(b"")
            self._post()

    def _assemble(self, frame: Frame) -> Iterator[str | bytes]:
        """Put a message together from its frames; control frames may stand between them."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._message_is_text = frame.opcode is Opcode.TEXT
        self._message += frame.data
        if frame.fin:
            message, self._message = bytes(self._message), bytearray()
            yield _as_text(message) if self._message_is_text else message

    def _post(self) -> None:
        """Leave to the writer what the protocol has to say; the caller holds the lock."""
        for data in self._protocol.data_to_send():
            self._outbox += data
            self._is_ending = self._is_ending or data == SEND_EOF
        self._changed.notify_all()

    # What follows runs in the writer's own thread.

    def _write(self) -> None:
        try:
            while (data := self._next_bytes()) is not None:
                self._socket.sendall(data)
                with self._changed:
                    del self._outbox[: len(data)]
                    self._changed.notify_all()
            self._socket.shutdown(socket.SHUT_WR)  # the client closes now, having read to the end
        except OSError as error:
            logger.debug("A client takes nothing more: %s", error)
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _next_bytes(self) -> bytes | None:
        """Return what is to be written next, None once nothing is to be written any more."""
        with self._changed:
            while not (self._outbox or self._is_ending or self._is_over):
                self._changed.wait(PING_SECONDS)
            return None if self._is_over else bytes(self._outbox[:WRITE_BYTES]) or None


def _as_text(message: bytes) -> str | bytes:
    try:
        return message.decode()
    except UnicodeDecodeError:
        return message
