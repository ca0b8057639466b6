"""A worker's end of the bus: it dials every gateway. Only one thread, the worker loop's, may call it."""

import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence

import zmq

from bus import wire
from bus.endpoint import check_endpoint, is_guarded
from bus.errors import BusError, WireError
from bus.keys import BusKeys
from contract import ToGateway, ToWorker

logger = logging.getLogger(__name__)

#: Messages read from one gateway before the next has its turn.
_RECEIVE_AT_ONCE = 1000

#: Messages that may wait for one gateway before it counts as gone.
_QUEUE_MESSAGES = 100_000

#: Milliseconds between attempts to dial a gateway that is not there: the first wait, and the longest,
#: which bounds how long a restarted gateway waits for its workers.
_REDIAL_MILLISECONDS = (100, 1000)

#: Milliseconds for the last events to leave when the worker ends.
_LINGER_MILLISECONDS = 1000

#: Characters of the host's name in a worker's name: a routing id holds 255 bytes in all.
_HOST_CHARACTERS = 64


class BusService:
    """Dials every endpoint, now and again until it answers. Raises BusError for one that is not allowed.

    `worker` is this start's name: another start, also on the same machine, has another one.
    """

    def __init__(self, endpoints: Sequence[str], *, keys: BusKeys | None = None) -> None:
        if not endpoints:
            raise BusError("a worker needs the endpoint of at least one gateway")
        if len(set(endpoints)) < len(endpoints):
            raise BusError(f"the same endpoint stands twice in {', '.join(endpoints)}")
        for endpoint in endpoints:
            check_endpoint(endpoint, keys)
        self.worker = f"{socket.gethostname()[:_HOST_CHARACTERS]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets: list[zmq.Socket[bytes]] = []
        for endpoint in endpoints:
            self._dial(endpoint, keys)

    @property
    def gateways(self) -> range:
        """The index of every gateway, as `receive` and `send` use it."""
        return range(len(self._sockets))

    def watch(self, descriptor: int) -> None:
        """Let `wait` return also when this file is readable."""
        self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, seconds: float) -> None:
        """Return when a gateway said something or a watched file is readable, or after that time."""
        self._poller.poll(int(seconds * 1000) + 1)

    def receive(self) -> Iterator[tuple[int, ToWorker]]:
        """Yield what came, with its gateway's index; what cannot be read is logged and dropped."""
        for gateway, dealer in enumerate(self._sockets):
            for _ in range(_RECEIVE_AT_ONCE):
                try:
                    frames = dealer.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                try:
                    envelope = wire.decode_for_worker(b"".join(frames))
                except WireError as error:
                    logger.warning("Dropped a message from gateway %d: %s", gateway, error)
                    continue
                yield gateway, envelope

    def send(self, gateway: int, envelope: ToGateway) -> bool:
        """Send without waiting; False if the gateway is not connected or takes nothing any more.

        Raises WireError for an envelope that cannot be written.
        """
        return self._post(self._sockets[gateway], wire.encode(envelope))

    def broadcast(self, envelope: ToGateway) -> None:
        """Send it to every gateway that is there."""
        message = wire.encode(envelope)
        for dealer in self._sockets:
            self._post(dealer, message)

    def close(self) -> None:
        for dealer in self._sockets:
            dealer.close(linger=_LINGER_MILLISECONDS)
        self._sockets.clear()
        self._context.term()

    def _dial(self, endpoint: str, keys: BusKeys | None) -> None:
        dealer = self._context.socket(zmq.DEALER)
        self._sockets.append(dealer)
        dealer.routing_id = self.worker.encode()
        dealer.immediate = True  # nothing queues up for a gateway that is not there
        dealer.reconnect_ivl, dealer.reconnect_ivl_max = _REDIAL_MILLISECONDS
        dealer.sndhwm = dealer.rcvhwm = _QUEUE_MESSAGES
        dealer.maxmsgsize = wire.MAX_MESSAGE_BYTES
        dealer.ipv6 = "[" in endpoint
        if keys is not None and is_guarded(endpoint, keys):
            keys.join(dealer)
        try:
            dealer.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise BusError(f"cannot dial bus endpoint {endpoint}: {error.strerror}") from error
        self._poller.register(dealer, zmq.POLLIN)

    @staticmethod
    def _post(dealer: "zmq.Socket[bytes]", message: bytes) -> bool:
        try:
            dealer.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True
