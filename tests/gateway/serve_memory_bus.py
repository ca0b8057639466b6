"""A program for tests: a real gateway on free ports of the loopback, with a bus in memory.

Prints its addresses on one line, then `slot N pid P` for each process. What a task does is its
text: "for ever" never says anything, "one token" stops talking after the first, the rest is answered.
"""

import logging
import os
import sys
import threading

from contract import Chat, Draining, Failed, Token
from gateway import Limits, server
from tests.gateway.memory_bus import MemoryBus, answer, wait_for_ever


def talk(bus):
    def script(task):
        text = task.input.messages[-1].content if isinstance(task.input, Chat) else ""
        if text == "for ever":
            yield from wait_for_ever(task)
        elif text in ("one token", "until the end"):
            yield Token(0, (0,), "one")
            patience = threading.Event()
            while not bus.is_stopped.is_set():
                patience.wait(0.02)
                yield None
            yield Failed.from_error(Draining("the server is shutting down"))
        else:
            yield from answer(task)

    return script


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def open_bus(slot):
    say(f"slot {slot} pid {os.getpid()}")
    bus = MemoryBus()
    bus.script = talk(bus)
    return bus


def main():
    logging.basicConfig(level=logging.INFO, format="%(processName)s %(levelname)s %(message)s")
    processes, finish_seconds = int(sys.argv[1]), float(sys.argv[2])
    server.FINISH_SECONDS = finish_seconds
    listeners = [server.listen("127.0.0.1:0"), server.listen("127.0.0.1:0")]
    say(" ".join(str(listener.getsockname()[1]) for listener in listeners))
    server.GatewayServer(listeners, processes, open_bus, Limits(body_bytes=100_000)).run()


if __name__ == "__main__":
    main()
