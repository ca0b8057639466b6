"""One connection over a pair of sockets; the client's end is spoken by the library."""

import socket
import threading
import time

import pytest
from websockets.frames import CloseCode, Opcode
from websockets.protocol import Protocol, Side

from gateway import web_socket
from gateway.web_socket import WebSocket

#: Seconds for anything that should happen at once.
DEADLINE_SECONDS = 10


class Client:
    """A client that reads only when it is told to."""

    def __init__(self, connection):
        connection.settimeout(DEADLINE_SECONDS)
        self.socket = connection
        self.protocol = Protocol(Side.CLIENT, max_size=None)
        self.frames = []

    def say(self, text):
        self.protocol.send_text(text.encode())
        self.flush()

    def close(self):
        self.protocol.send_close(CloseCode.NORMAL_CLOSURE)
        self.flush()

    def flush(self):
        for data in self.protocol.data_to_send():
            self.socket.sendall(data)

    def hear(self):
        """Return the next frame; None at the end of the connection."""
        while not self.frames:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self.protocol.receive_data(data)
            self.frames += self.protocol.events_received()
        return self.frames.pop(0)

    def hear_text(self):
        frame = self.hear()
        assert frame.opcode is Opcode.TEXT
        return bytes(frame.data).decode()


@pytest.fixture(autouse=True)
def _quick_ends(monkeypatch):
    """These clients do not hang up when the server has said its last."""
    monkeypatch.setattr(web_socket, "CLOSE_SECONDS", 0.3)


@pytest.fixture
def ends():
    server, client = socket.socketpair()
    server.settimeout(DEADLINE_SECONDS)
    with server, client:
        yield WebSocket(Protocol(Side.SERVER), server, b""), Client(client)


def received(server):
    """Return what comes next."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if messages := list(server.receive(0.05)):
            return messages
    raise AssertionError("nothing came")


def closed(server, code=CloseCode.GOING_AWAY):
    """Close it in a thread of its own, which a test joins."""
    thread = threading.Thread(target=server.close, args=(code, "bye"))
    thread.start()
    return thread


def test_messages_go_both_ways(ends):
    server, client = ends
    client.say("你好")
    assert received(server) == ["你好"]
    server.send("😀")
    assert client.hear_text() == "😀"
    client.close()
    closed(server).join(DEADLINE_SECONDS)
    assert client.hear().opcode is Opcode.CLOSE


def test_frames_from_many_threads_come_whole(ends):
    server, client = ends
    texts = {f"{number} " * 5000 for number in range(20)}
    threads = [threading.Thread(target=server.send, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    assert {client.hear_text() for _ in texts} == texts
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    client.close()
    closed(server).join(DEADLINE_SECONDS)


def test_a_client_that_reads_nothing_is_still_heard(ends):
    server, client = ends
    answer = "x" * 100_000
    count = 0
    while not server.is_clogged:
        server.send(answer)
        count += 1
    client.say("still talking")
    assert received(server) == ["still talking"]
    assert [client.hear_text() for _ in range(count)] == [answer] * count
    client.close()
    closed(server).join(DEADLINE_SECONDS)
    assert not server.is_clogged


def test_a_client_that_reads_nothing_for_too_long_is_gone():
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(0.2)
        server = WebSocket(Protocol(Side.SERVER), one, b"")
        server.send("x" * 10_000_000)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while server.is_open:
            assert time.monotonic() < deadline
            server.pause(0.05)
        other.close()
        closed(server).join(DEADLINE_SECONDS)


def test_a_silent_client_is_asked_whether_it_is_there_and_lives_on_its_answer(ends, monkeypatch):
    monkeypatch.setattr(web_socket, "PING_SECONDS", 0.05)
    monkeypatch.setattr(web_socket, "SILENCE_SECONDS", 1.0)
    server, client = ends
    stop_at = time.monotonic() + 2.0
    asked = 0
    while time.monotonic() < stop_at:
        assert list(server.receive(0.06)) == []
        assert server.is_open
        client.socket.setblocking(False)
        try:
            client.protocol.receive_data(client.socket.recv(1 << 16))
        except BlockingIOError:
            continue
        finally:
            client.socket.settimeout(DEADLINE_SECONDS)
        asked += sum(frame.opcode is Opcode.PING for frame in client.protocol.events_received())
        client.flush()
    assert asked > 3
    client.close()
    closed(server).join(DEADLINE_SECONDS)


def test_a_client_that_gives_no_sign_of_life_is_gone(ends, monkeypatch):
    monkeypatch.setattr(web_socket, "SILENCE_SECONDS", 0.2)
    server, client = ends
    deadline = time.monotonic() + DEADLINE_SECONDS
    while server.is_open:
        assert list(server.receive(0.05)) == []
        assert time.monotonic() < deadline
    assert client.hear().opcode is Opcode.CLOSE
    client.socket.close()
    closed(server).join(DEADLINE_SECONDS)


def test_who_keeps_a_client_waiting_does_not_count_that_as_its_silence(ends, monkeypatch):
    monkeypatch.setattr(web_socket, "SILENCE_SECONDS", 0.1)
    server, client = ends
    server.pause(0.3)
    assert list(server.receive(0.01)) == []
    assert server.is_open
    client.close()
    closed(server).join(DEADLINE_SECONDS)


def test_a_client_that_does_not_say_good_bye_cannot_hold_the_end_up(ends):
    server, client = ends
    server.send("last words")
    closing = closed(server)
    closing.join(DEADLINE_SECONDS)
    assert not closing.is_alive()
    assert client.hear_text() == "last words"
    assert client.hear().opcode is Opcode.CLOSE


def test_what_is_said_to_a_closed_connection_is_lost_with_it(ends):
    server, client = ends
    client.close()
    assert list(server.receive(1.0)) == []
    assert not server.is_open
    server.send("too late")
    closed(server).join(DEADLINE_SECONDS)
    assert client.hear().opcode is Opcode.CLOSE
    assert client.hear() is None
