"""POST /sse/subscribe and PUT /yuan: the paths of YuanChat's server and of the Yuan-2.0 inference server."""

import time
from collections.abc import Generator, Iterable

from flask import Blueprint, Response, request

from contract import Failed, Finished, ServingError, Token
from gateway.body import read_body
from gateway.dialects import yuan
from gateway.disconnect import Connection
from gateway.failures import Caller, failure_response, log_client_gone, log_failure, this_caller
from gateway.places import Places
from gateway.streaming import ClientGone, Stream, Streams, TaskFailed
from gateway.together import Together

#: Seconds of silence after which a client is told that the model works.
PING_SECONDS = 15.0

#: Seconds from one growing answer to the next: each holds the whole text, and nobody reads faster.
GROW_SECONDS = 0.1


def yuan_routes(streams: Streams) -> Blueprint:
    """Build the blueprint `yuan`. Failures are told in answers with status 200, as their clients expect."""
    routes = Blueprint("yuan", __name__)
    places = Places(streams.bus)

    @routes.post("/sse/subscribe")
    def subscribe() -> Response:
        try:
            task, wants_growth = yuan.parse_subscribe(read_body(request, streams.limits), streams.limits)
            stream = streams.begin(task, Connection(request.environ))
        except ServingError as error:
            return refuse(error)
        response = events_response(answer(stream, this_caller(), wants_growth=wants_growth))
        response.call_on_close(stream.close)
        return response

    @routes.put("/yuan")
    def infer() -> Response:
        try:
            asked = yuan.parse_infer(read_body(request, streams.limits), streams.limits)
            together = Together(streams, places, Connection(request.environ))
            turns = together.run([one.task for one in asked])
        except TaskFailed as error:
            return refuse(error.failed, error.task_id)
        except ServingError as error:
            return refuse(error)
        answers = [(one.id, turn.text) for one, turn in zip(asked, turns, strict=True)]
        return Response(yuan.render_output(answers), mimetype="application/json")

    return routes


def answer(stream: Stream, caller: Caller, *, wants_growth: bool) -> Generator[bytes, None, None]:
    """Yield the answer, before that its growth if it is wanted, and pings while nothing else is said."""
    text, said_at, has_news = "", time.monotonic(), False
    yield b""  # the head goes out now, however long the first event takes
    try:
        for event in stream.events():
            rendered = b""
            now = time.monotonic()
            if isinstance(event, Failed):
                log_failure(caller, event, stream.task.task_id)
                rendered = yuan.render_failed_event(event, time.time())
            elif isinstance(event, Finished):
                rendered = yuan.render_answer(yuan.clean(text), time.time())
            elif isinstance(event, Token):
                text += event.text
                has_news = has_news or bool(event.text)
            if not rendered and wants_growth and has_news and now - said_at >= GROW_SECONDS:
                rendered, has_news = yuan.render_answer(yuan.clean(text), time.time()), False
            if not rendered and now - said_at >= PING_SECONDS:
                rendered = yuan.render_ping(time.time())
            if rendered:
                said_at = now
                yield rendered
    except ClientGone:
        log_client_gone(caller, stream.task.task_id)


def events_response(events: Iterable[bytes]) -> Response:
    """Return a stream that nothing on the way may collect."""
    response = Response(iter(events), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def refuse(error: ServingError | Failed, task_id: str = "-") -> Response:
    """Tell what is wrong in the form of the path, and leave the one line in the log."""
    failed = error if isinstance(error, Failed) else Failed.from_error(error)
    log_failure(this_caller(), failed, task_id)
    response = failure_response(failed)
    response.status_code = 200
    return response
