"""A gateway's end of the bus that a test speaks for itself, and a worker that has greeted it."""

import zmq

from bus import wire
from contract import Hello
from tests.bus.house import CARD, RunningWorker, eventually


class Gateway:
    """A gateway's end of the bus that the test speaks for itself."""

    def __init__(self, context: zmq.Context, endpoint: str) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(endpoint)
        self.endpoint = endpoint
        self.heard = []

    def hears(self, condition) -> bool:
        """Listen for a moment; tell whether the condition is true of any envelope heard so far."""
        for _ in range(100):
            if not self.socket.poll(10):
                break
            self.worker, message = self.socket.recv_multipart()
            self.heard.append(wire.decode_for_gateway(message))
        return any(condition(envelope) for envelope in self.heard)

    def says(self, message: bytes) -> None:
        self.socket.send_multipart([self.worker, message])


def started(gateway: Gateway, perform) -> RunningWorker:
    worker = RunningWorker([gateway.endpoint], perform, 2, CARD, ("chat",), None)
    eventually(lambda: gateway.hears(lambda each: isinstance(each, Hello)))
    return worker
