"""Servers on loopback for upstream models: a real gateway over a model, Yuan-2.0, and a hostile one."""

import json
import socket
import threading
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from werkzeug.serving import make_server

import LLMkernel
from contract import Failed, ServingError
from gateway import create_app
from tests.gateway.memory_bus import MemoryBus, Worker

#: Seconds for anything that a test waits for: far above what it takes on a busy machine.
DEADLINE_SECONDS = 20


class ModelBus(MemoryBus):
    """Runs each task on a model in the thread that asks; `left_early` counts those that were cancelled."""

    def __init__(self, model):
        card = model.card
        super().__init__(self._perform, [Worker(model=card)])
        self._model = model
        self.left_early = 0

    def _perform(self, task):
        try:
            with closing(LLMkernel.chat(self._model, task.input, task.sampling)) as events:
                yield from events
        except GeneratorExit:
            self.left_early += 1
            raise
        except ServingError as error:
            yield Failed.from_error(error)


@contextmanager
def serving(application, port=0):
    """Serve a WSGI application; yields its address."""
    server = make_server("127.0.0.1", port, application, threaded=True)
    server.daemon_threads = True
    yield from _served(server, server.server_port)


@contextmanager
def lectern_over(model, port=0, limits=None):
    """Serve a model by a real gateway, without the bus and its processes; yields its address and bus."""
    bus = ModelBus(model)
    with serving(create_app(bus, limits), port) as url:
        yield url, bus


def _served(server, port):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE_SECONDS)


class YuanServer:
    """As docs and clients of Yuan-2.0 know it: strictly serial, not streamed, failures with status 200.

    `answer` makes a text of a prompt; while `gate` is not set, requests are held. `most_at_once` tells how
    many were ever worked on together.
    """

    def __init__(self, answer, context_tokens=8192):
        self.answer = answer
        self.context_tokens = context_tokens
        self.bodies = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.active = self.most_at_once = 0
        self._counting = threading.Lock()
        self._serial = threading.Lock()

    @contextmanager
    def running(self):
        handler = type("Handler", (_YuanHandler,), {"yuan": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        try:
            yield from _served(server, server.server_port)
        finally:
            self.gate.set()

    def respond(self, body):
        self.bodies.append(body)
        with self._counting:
            self.active += 1
            self.most_at_once = max(self.most_at_once, self.active)
        try:
            with self._serial:
                self.entered.set()
                self.gate.wait(DEADLINE_SECONDS)
                return self._answered(body)
        finally:
            with self._counting:
                self.active -= 1

    def _answered(self, body):
        if complaint := self._complaint(body):
            return _failed(1, complaint)
        try:
            output = [{"id": ques["id"], "ans": self.answer(ques["ques"])} for ques in body["ques_list"]]
        except RuntimeError as error:
            return _failed(2, str(error))
        return {
            "flag": True,
            "errCode": "0",
            "errMessage": "success",
            "exceptionMsg": "",
            "resData": {"output": output},
        }

    def _complaint(self, body):
        if not 1 <= len(body.get("ques_list", [])) <= 128:
            return "Maximum number of ques_list is 128"
        if not (type(body["tokens_to_generate"]) is int and body["tokens_to_generate"] >= 1):
            return "tokens_to_generate must be an integer and greater than 0"
        if not 0 < body["temperature"] <= 100:
            return "temperature must be a positive number less than or equal to 100.0"
        if not (type(body["top_k"]) is int and 0 <= body["top_k"] <= 1000):
            return "top_k must be greater than or equal to 1"
        if not 0 <= body["top_p"] <= 1 or (body["top_k"] and body["top_p"]):
            return "top_p must be a positive number and must be less than or equal to 1.0"
        longest = max(len(ques["ques"].encode()) for ques in body["ques_list"])
        if longest + body["tokens_to_generate"] > self.context_tokens:
            return f"the sum of input and output seqence lengths shoud be less than {self.context_tokens}"
        return None


def _failed(code, message):
    return {"flag": False, "errCode": code, "successMessage": "", "exceptionMsg": message, "resData": {}}


class _YuanHandler(BaseHTTPRequestHandler):
    yuan: YuanServer
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = json.dumps(self.yuan.respond(body)).encode()
        with suppress(OSError):  # clients may leave in the middle
            self._send(200 if self.path == "/yuan" else 404, content)

    def _send(self, code, content):
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class HostileServer:
    """Answers each connection with the next of its scripts, the last one for ever.

    A script is a list of bytes to send, of events to wait for, and of numbers: `RESET` breaks the
    connection. `requests` holds what was asked; `hung_up` is set once a client closes a silent connection.
    """

    RESET = 0

    def __init__(self, *scripts, port=0):
        self.scripts = list(scripts)
        self.requests = []
        self.hung_up = threading.Event()
        self.asked = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(DEADLINE_SECONDS)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        connection.settimeout(DEADLINE_SECONDS)
        with connection, suppress(OSError):  # clients may leave in the middle
            request = self._read(connection)
            if request is None:
                return
            with self._lock:
                self.requests.append(request)
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            self.asked.set()
            for step in script:
                if step == self.RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                if step is SILENCE:
                    if connection.recv(1) == b"":
                        self.hung_up.set()
                    return
                connection.sendall(step)

    def _read(self, connection):
        """Return the request's body as JSON, None for a GET, which is answered elsewhere."""
        received = b""
        while b"\r\n\r\n" not in received:
            if not (piece := connection.recv(65536)):
                return None
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(65536)
        return json.loads(body) if body else {}


#: A step of a script: say nothing until the client hangs up.
SILENCE = object()

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def status(code, body=b"", **headers):
    """Return a response that is not a stream."""
    lines = [f"HTTP/1.1 {code} Whatever", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunk(text=None, reason=None, index=0, **fields):
    """Return one event of a stream."""
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice], **fields}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
