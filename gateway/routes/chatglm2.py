"""/stream, /generate, /tokenize and /interrupt: the paths of my-chatglm2."""

import time
from collections.abc import Generator, Iterable
from typing import Any

from flask import Blueprint, Response, request

from contract import Failed, Finished, MethodNotAllowed, ServingError, Task
from gateway.body import read_bytes
from gateway.dialects import chatglm2
from gateway.dialects.chatglm2 import Answer, Asked, RenderAnswer
from gateway.disconnect import Connection
from gateway.failures import Caller, failure_response, log_client_gone, log_failure, this_caller
from gateway.keys import caller_of
from gateway.limits import Limits
from gateway.pace import Pace
from gateway.routes.status import json_response
from gateway.streaming import ClientGone, Stream, Streams, TaskFailed

#: The paths that pages of any origin may use; the last tells such a page that the server is there.
PATHS = frozenset({"/stream", "/generate", "/tokenize", "/interrupt", "/"})


def chatglm2_routes(streams: Streams) -> Blueprint:
    """Build the blueprint `chatglm2`."""
    routes = Blueprint("chatglm2", __name__)
    limits = streams.limits

    @routes.post("/stream")
    def stream() -> Response:
        try:
            fields = chatglm2.decode_body(read_bytes(request, limits), limits)
            asked = chatglm2.parse_chat(fields, limits, caller_of(request))
            return answer_growing(streams, asked, Answer.render_pair)
        except ServingError as error:
            return refuse(error, as_event=True)

    @routes.route("/generate", methods=["GET", "POST"])
    def generate() -> Response:
        fields: Any = None
        try:
            fields = read_fields(limits)
            is_text = request.method == "GET"
            asked = chatglm2.parse_generate(fields, limits, caller_of(request), is_text=is_text)
            if chatglm2.wants_stream(fields):
                return answer_growing(streams, asked, Answer.render_response)
            return answer_whole(streams, asked)
        except ServingError as error:
            return refuse(error, as_event=chatglm2.wants_stream(fields))

    @routes.post("/tokenize")
    def tokenize() -> Response:
        return answer_tokens(streams, *chatglm2.parse_tokenize(read_bytes(request, limits), limits))

    @routes.post("/interrupt")
    def interrupt() -> Response:
        task_id = chatglm2.parse_interrupt(read_bytes(request, limits), limits)
        streams.bus.interrupt(caller_of(request), task_id)
        return json_response({"message": "OK", "success": True})

    return routes


def read_fields(limits: Limits) -> Any:
    """Return the fields of the request at hand to /generate, from its address or its body."""
    if request.method == "HEAD":
        raise MethodNotAllowed("this path does not take HEAD: an answer would be made and thrown away")
    if request.method == "GET":
        return chatglm2.decode_address(request.args.items(multi=True), limits)
    return chatglm2.decode_body(read_bytes(request, limits), limits)


def answer_growing(streams: Streams, asked: Asked, render: RenderAnswer) -> Response:
    """Answer as it is made. The response begins at once, so that no wait in a queue delays it."""
    stream = streams.begin(asked.task, Connection(request.environ))
    response = events_response(grow(stream, Answer(asked), render, this_caller()))
    response.headers["X-Task-Id"] = asked.task.task_id
    response.call_on_close(stream.close)
    return response


def answer_whole(streams: Streams, asked: Asked) -> Response:
    """Answer when it is whole, as plain text."""
    try:
        with streams.open(asked.task, Connection(request.environ)) as stream:
            (turn,), _ = stream.collect()
    except TaskFailed as error:
        return refuse(error.failed, as_event=False, task_id=error.task_id)
    return Response(asked.answer_prefix + turn.text, mimetype="text/plain")


def answer_tokens(streams: Streams, task: Task, wants_tokens: bool) -> Response:
    """Answer with a text's tokens, or how many they are."""
    with streams.open(task, Connection(request.environ)) as stream:
        _, finished = stream.collect()
    return Response(chatglm2.render_tokens(finished, wants_tokens), mimetype="application/json")


def grow(
    stream: Stream, answer: Answer, render: RenderAnswer, caller: Caller
) -> Generator[bytes, None, None]:
    """Yield the answer so far whenever it has grown, one event at a time; a failure is the last."""
    pace = Pace(time.monotonic())
    try:
        for event in stream.events():
            if isinstance(event, Failed):
                log_failure(caller, event, stream.task.task_id)
                yield chatglm2.render_failed_event(event)
            elif isinstance(event, Finished):
                if pace.is_owed_last:
                    time.sleep(pace.seconds_to_gap(time.monotonic()))
                    yield render(answer)
            else:
                pace.has_news |= event is not None and answer.take(event)
                if pace.is_due(time.monotonic()):
                    pace.note(time.monotonic())
                    yield render(answer)
    except ClientGone:
        log_client_gone(caller, stream.task.task_id)


def events_response(events: Iterable[bytes]) -> Response:
    """Return a response of which each event becomes one chunk; nothing on the way may collect them."""
    response = Response(iter(events), mimetype="text/event-stream")  # no list: that would be no chunks
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def refuse(error: ServingError | Failed, *, as_event: bool, task_id: str = "-") -> Response:
    """Tell what is wrong the way its clients understand: in a stream, or as a text with a status."""
    failed = error if isinstance(error, Failed) else Failed.from_error(error)
    log_failure(this_caller(), failed, task_id)
    if as_event:
        return events_response([chatglm2.render_failed_event(failed)])
    return failure_response(failed)
