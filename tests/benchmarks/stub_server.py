"""A real HTTP server of one script: what each POST is answered with, in pieces and in chunks."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        status, pieces = self.server.script(body)
        self.send_response(status)
        if self.server.is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.server.is_chunked else piece)
            self.wfile.flush()
        if self.server.is_chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *words):
        """Say nothing."""


@contextmanager
def serving(script, *, is_chunked=True):
    """Yield a server that answers each body with `script(body)`: a status and pieces of content."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    server.script, server.is_chunked, server.asked = script, is_chunked, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def event(**chunk):
    return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=False).encode()


def saying(text, **more):
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more)


DONE = b"data: [DONE]\n\n"
