"""POST /tasks/chat and POST /tasks/<name>: the native protocol."""

import time
from collections.abc import Generator

from flask import Blueprint, Response, request

from contract import Failed, Task
from gateway.body import read_body
from gateway.dialects import native
from gateway.disconnect import Connection
from gateway.failures import Caller, log_client_gone, log_failure, this_caller
from gateway.streaming import ClientGone, Stream, Streams

#: Seconds of silence after which a stream says that it still lives: proxies cut lines after 30 or 60.
KEEP_ALIVE_SECONDS = 15.0


def task_routes(streams: Streams) -> Blueprint:
    """Build the blueprint `tasks`."""
    routes = Blueprint("tasks", __name__)

    @routes.post("/tasks/chat")
    def chat() -> Response:
        return respond(*native.parse_chat(read_body(request, streams.limits), streams.limits))

    @routes.post("/tasks/<name>")
    def wish(name: str) -> Response:
        return respond(*native.parse_wish(name, read_body(request, streams.limits), streams.limits))

    def respond(task: Task, wants_stream: bool) -> Response:
        stream = streams.open(task, Connection(request.environ))
        if wants_stream:
            return server_sent_events(stream, this_caller())
        with stream:
            text, finished = stream.collect()
        return Response(native.render_answer(task, text, finished), mimetype="application/json")

    return routes


def server_sent_events(stream: Stream, caller: Caller) -> Response:
    """Return a response that sends the events as they come and closes the stream with the connection."""
    response = Response(_rendered(stream, caller), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events
    response.call_on_close(stream.close)
    return response


def _rendered(stream: Stream, caller: Caller) -> Generator[bytes, None, None]:
    said_at = time.monotonic()
    try:
        for event in stream.events():
            rendered = native.render_event(stream.task, event) if event else b""
            if isinstance(event, Failed):
                log_failure(caller, event, stream.task.task_id)
            if not rendered and time.monotonic() - said_at >= KEEP_ALIVE_SECONDS:
                rendered = native.KEEP_ALIVE
            if rendered:
                said_at = time.monotonic()
                yield rendered
    except ClientGone:
        log_client_gone(caller, stream.task.task_id)
