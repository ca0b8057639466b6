import sys

import psutil
import pytest

from benchmarks.peers.commands import ServerCommand
from benchmarks.running_server import DidNotStart, OwnServer, free_port
from tests.bus.house import eventually

#: Answers every chat with one token, as a server does, and has a child that only waits.
SERVER = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answering(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in (sys.argv[2], sys.argv[3], "[DONE]"):
            self.wfile.write(b"data: " + event.encode() + b"\\n\\n")

child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answering).serve_forever()
"""


#: What it answers: a token, then how many there were.
TOKEN = '{"choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}]}'
USAGE = '{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'


def test_a_paused_server_is_halted_with_its_family_until_it_goes_on(tmp_path):
    port = free_port()
    command = ServerCommand("stub", "1", (sys.executable, "-c", SERVER, str(port), TOKEN, USAGE))
    with OwnServer(command, port, tmp_path / "log", {}) as server:
        family = [psutil.Process(server.process_id), *psutil.Process(server.process_id).children()]
        assert len(family) == 2
        server.pause()
        eventually(lambda: {process.status() for process in family} == {psutil.STATUS_STOPPED})
        server.go_on()
        eventually(lambda: psutil.STATUS_STOPPED not in {process.status() for process in family})


def test_a_server_that_ends_at_once_is_told_of_with_its_last_words(tmp_path):
    command = ServerCommand("stub", "1", (sys.executable, "-c", "print('no such model')"))
    with (
        pytest.raises(DidNotStart, match="no such model"),
        OwnServer(command, free_port(), tmp_path / "log", {}),
    ):
        pass
