"""A small HTTP server with Lectern's routes whose answers a test can spoil one by one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Seconds a held stream waits at most, so that no test can hang on it.
HOLD_SECONDS = 20

TITLES = ["微积分之旅：从初级到高级", "微积分的秘密：理解极限与导数"]
FOUND = {str(number): title for number, title in enumerate(TITLES, start=1)}
BAD_REQUEST = {"error": {"code": "invalid_request", "message": "msg: is missing", "retryable": False}}
FINISHED = ("finished", {"task_id": "t", "stop_reason": "stop"})
RETRIEVAL = {
    "task_id": "t",
    "answer": FOUND,
    "text": json.dumps(FOUND, ensure_ascii=False),
    "rows": [{"key": 11, "title": TITLES[0]}, {"key": 12, "title": TITLES[1]}],
    "considered_rows": 25,
    "timings": {"first_token_seconds": 0.5, "total_seconds": 1.0},
}
BOOKS = {
    "respond": json.dumps(FOUND, ensure_ascii=False),
    "books": [{"id": 11, "title": TITLES[0]}, {"id": 12, "title": TITLES[1]}],
}


class SmallLectern:
    """Answers as Lectern does; `answers` maps a route to (status, body), a stream being a list of events."""

    def __init__(self) -> None:
        self.looks_until_ready = 0
        #: A stream waits for this after its first event.
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.keys: set[str | None] = set()
        self.answers = {
            "/chat": (200, {"respond": "你好，我是演示模型。"}),
            "/chat without msg": (400, BAD_REQUEST),
            "/tasks/chat": (
                200,
                [("token", {"index": 0, "text": "你"}), ("token", {"text": "好😀"}), FINISHED],
            ),
            "/tasks/book_retrieval": (200, RETRIEVAL),
            "/book": (200, BOOKS),
        }
        handler = type("Handler", (_Handler,), {"lectern": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="lectern")
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def spoil(self, route, status=200, **fields):
        """Change fields of a route's answer."""
        self.answers[route] = (status, self.answers[route][1] | fields)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    lectern: SmallLectern

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.lectern.looks_until_ready -= 1
        is_ready = self.lectern.looks_until_ready < 0
        self.answer(
            200 if is_ready else 503, "application/json", b"{}" if is_ready else b'{"why": "no_worker"}'
        )

    def do_POST(self):
        self.lectern.keys.add(self.headers["Authorization"])
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_bad = self.path == "/chat" and "msg" not in body
        status, answer = self.lectern.answers["/chat without msg" if is_bad else self.path]
        match answer:
            case bytes():
                self.answer(status, "text/html", answer)
            case list():
                self.stream(status, [_render(event) for event in answer])
            case _:
                self.answer(status, "application/json", json.dumps(answer, ensure_ascii=False).encode())

    def answer(self, status, kind, content):
        self.begin(status, kind)
        self.wfile.write(content)

    def stream(self, status, events):
        self.begin(status, "text/event-stream")
        for event in events:
            self.wfile.write(event)
            self.wfile.flush()
            self.lectern.may_go_on.wait(HOLD_SECONDS)

    def begin(self, status, kind):
        """The end of the connection is the end of the answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()


def _render(event):
    name, data = event
    return f": waiting\n\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
