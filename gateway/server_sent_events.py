"""Sends a task's events as they come, in whatever form a protocol gives them."""

import time
from collections.abc import Callable, Generator

from flask import Response

from contract import Event, Failed
from gateway.failures import Caller, log_client_gone, log_failure, this_caller
from gateway.streaming import ClientGone, Stream

#: Seconds of silence after which a stream says that it still lives: proxies cut lines after 30 or 60.
KEEP_ALIVE_SECONDS = 15.0

#: What a comment looks like that only keeps a connection open.
KEEP_ALIVE = b": waiting\n\n"

#: Turns an event into the bytes that a protocol sends for it, mostly one server-sent event.
Render = Callable[[Event], bytes]


def server_sent_events(stream: Stream, render: Render, opening: bytes = b"") -> Response:
    """Return a response that sends the opening and then each event as it comes.

    The stream is closed with the connection.
    """
    response = Response(_rendered(stream, render, opening, this_caller()), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events
    response.call_on_close(stream.close)
    return response


def _rendered(stream: Stream, render: Render, opening: bytes, caller: Caller) -> Generator[bytes, None, None]:
    said_at = time.monotonic()
    try:
        if opening:
            yield opening
        for event in stream.events():
            rendered = render(event) if event else b""
            if isinstance(event, Failed):
                log_failure(caller, event, stream.task.task_id)
            if not rendered and time.monotonic() - said_at >= KEEP_ALIVE_SECONDS:
                rendered = KEEP_ALIVE
            if rendered:
                said_at = time.monotonic()
                yield rendered
    except ClientGone:
        log_client_gone(caller, stream.task.task_id)
