"""Servers on loopback that are asked an exam, and remember what they were asked."""

import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from evals.ceval.prompts import build_exam
from evals.ceval.subjects import choose_subjects

QUESTIONS = Path(__file__).parent / "ceval_questions"
SUBJECTS = (
    "computer_network",
    "high_school_physics",
    "college_economics",
    "middle_school_history",
    "civil_servant",
)

#: Seconds within which anything that should happen on loopback has happened, also on a busy machine.
PATIENCE = 30.0


def exam_of(split="val", shots=0, subjects=SUBJECTS):
    return build_exam(QUESTIONS, choose_subjects(subjects), split, shots)


def answer_key(shots=0):
    """Prompt -> right letter."""
    return {one.prompt: one.question.answer for one in exam_of(shots=shots)}


def reply(frame, answer):
    return json.dumps({"id": frame["id"], "answer": answer, "ftl": 0.25})


class WebSocketExam:
    """Speaks the protocol; `answer(connection, frame)` returns a frame, "" for silence, None to hang up.

    Connections count from 0. Replies go out once `batch` questions have come, the last one first.
    """

    def __init__(self, answer, batch=1):
        self.connections = []
        self.requests = []
        self._answer = answer
        self._batch = batch

    @property
    def url(self):
        return "ws://{}:{}".format(*self.server.socket.getsockname())

    def talk(self, connection):
        number = len(self.connections)
        frames = []
        self.connections.append(frames)
        self.requests.append(connection.request)
        waiting = []
        with suppress(ConnectionClosed):  # a client that was killed
            for text in connection:
                if text in ("tps", "ftl"):
                    connection.send({"tps": "12.5", "ftl": "0.25"}[text])
                    continue
                frames.append(json.loads(text))
                waiting.append(self._answer(number, frames[-1]))
                if waiting[-1] is None:
                    return
                if len(waiting) == self._batch:
                    for words in filter(None, reversed(waiting)):
                        connection.send(words)
                    waiting.clear()


@contextmanager
def websocket_exam(answer, batch=1):
    exam = WebSocketExam(answer, batch)
    with serve(exam.talk, "127.0.0.1", 0) as exam.server:
        thread = threading.Thread(target=exam.server.serve_forever)
        thread.start()
        yield exam
        exam.server.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def http_exam(answer):
    """Yield (url, bodies); `answer(body)` returns a status and what to send, text or a JSON value."""
    bodies = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
            self.send_answer(*answer(body))

        def do_GET(self):
            """A WebSocket's handshake."""
            bodies.append(None)
            self.send_answer(*answer(None))

        def send_answer(self, status, words):
            content = words.encode() if isinstance(words, str) else json.dumps(words).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield "http://{}:{}".format(*server.server_address), bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def completion(text):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}
