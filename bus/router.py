"""The gateway's socket: binds, lets workers in, turns their bytes into envelopes. One thread may use it."""

import logging

import zmq

from bus import wire
from bus.endpoint import check_endpoint, is_guarded, make_room, remove_socket_file
from bus.errors import BusError, WireError
from bus.keys import BusKeys, Doorkeeper
from contract import ToGateway

logger = logging.getLogger(__name__)

#: Messages read before the thread looks after its other duties: some 5 ms of work.
_RECEIVE_AT_ONCE = 1000

#: Messages that may wait for one worker, or from one worker, before it counts as out of reach.
QUEUE_MESSAGES = 100_000

#: Milliseconds for the last cancellations to leave when the socket closes.
_LINGER_MILLISECONDS = 100

#: identity, message
_FRAMES = 2


class Router:
    """Raises BusError if the endpoint is not allowed or cannot be bound.

    `bell` is a file descriptor that ends a wait when it becomes readable. The sockets never block, so
    they may be plain ones; only waiting is done gevent's way if `cooperative`.
    """

    def __init__(self, endpoint: str, keys: BusKeys | None, bell: int, cooperative: bool = False) -> None:
        check_endpoint(endpoint, keys)
        make_room(endpoint)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._doorkeeper: Doorkeeper | None = None
        try:
            self._bind(endpoint, keys)
        except zmq.ZMQError as error:
            self._close_sockets()
            raise BusError(f"cannot bind bus endpoint {endpoint}: {error.strerror}") from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.is_drained = True
        self._poller = _new_poller(cooperative)
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(bell, zmq.POLLIN)
        if self._doorkeeper is not None:
            self._poller.register(self._doorkeeper.socket, zmq.POLLIN)

    def wait(self, seconds: float) -> None:
        """Return when there is something to receive or the bell rings, or after that time."""
        self._poller.poll(int(seconds * 1000) + 1)

    def receive(self) -> list[tuple[bytes, ToGateway]]:
        """Return what came, with the routing id of its sender; what cannot be read is logged and dropped.

        `is_drained` tells whether that was all.
        """
        if self._doorkeeper is not None:
            self._doorkeeper.answer()
        heard: list[tuple[bytes, ToGateway]] = []
        self.is_drained = False
        for _ in range(_RECEIVE_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                self.is_drained = True
                break
            if len(frames) != _FRAMES:
                logger.warning("Dropped a message of %d frames from worker %r", len(frames), frames[0])
                continue
            try:
                heard.append((frames[0], wire.decode_for_gateway(frames[1])))
            except WireError as error:
                logger.warning("Dropped a message from worker %r: %s", frames[0], error)
        return heard

    def send(self, worker: bytes, message: bytes) -> bool:
        """Send without waiting; False if the worker's connection is gone or takes nothing any more."""
        try:
            self._socket.send_multipart((worker, message), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def close(self) -> None:
        """Close the sockets and remove the socket file."""
        self._close_sockets()
        remove_socket_file(self.endpoint)

    def _bind(self, endpoint: str, keys: BusKeys | None) -> None:
        self._socket.router_mandatory = True  # a send to a lost worker fails instead of vanishing
        self._socket.router_handover = True  # a worker that dials again takes over its own name
        self._socket.sndhwm = self._socket.rcvhwm = QUEUE_MESSAGES
        self._socket.maxmsgsize = wire.MAX_MESSAGE_BYTES
        self._socket.ipv6 = "[" in endpoint
        if keys is not None and is_guarded(endpoint, keys):
            self._doorkeeper = Doorkeeper(self._context, keys)
            keys.guard(self._socket)
        self._socket.bind(endpoint)

    def _close_sockets(self) -> None:
        if self._doorkeeper is not None:
            self._doorkeeper.close()
        self._socket.close(linger=_LINGER_MILLISECONDS)
        self._context.term()


def _new_poller(cooperative: bool) -> zmq.Poller:
    if not cooperative:
        return zmq.Poller()
    from zmq import green  # gevent comes with it: a worker process has no use for that

    return green.Poller()
