"""POST /tasks/chat and POST /tasks/<name>: the native protocol."""

from functools import partial

from flask import Blueprint, Response, request

from contract import Task
from gateway.body import read_body
from gateway.dialects import native
from gateway.disconnect import Connection
from gateway.server_sent_events import server_sent_events
from gateway.streaming import Streams


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
            return server_sent_events(stream, partial(native.render_event, task))
        with stream:
            turns, finished = stream.collect()
        return Response(native.render_answer(task, turns, finished), mimetype="application/json")

    return routes
