"""POST /v1/chat/completions and GET /v1/models: OpenAI's API."""

import time
from functools import partial

from flask import Blueprint, Response, request
from msgspec.structs import replace

from contract import UnknownModel
from gateway.body import read_body
from gateway.dialects import openai_answer
from gateway.dialects.openai_answer import Answering
from gateway.dialects.openai_request import parse_chat
from gateway.dialects.strict import show
from gateway.disconnect import Connection
from gateway.routes.status import json_response
from gateway.server_sent_events import server_sent_events
from gateway.streaming import Streams


def openai_routes(streams: Streams) -> Blueprint:
    """Build the blueprint `openai`."""
    routes = Blueprint("openai", __name__, url_prefix="/v1")
    started = int(time.time())

    @routes.post("/chat/completions")
    def chat_completions() -> Response:
        asked = parse_chat(read_body(request, streams.limits), streams.limits)
        # An answer names its model, so whoever leaves the choice to us gets one that is known beforehand.
        task = replace(asked.task, model=asked.task.model or next(iter(model_names()), None))
        answering = Answering(task, int(time.time()), asked.wants_usage)
        stream = streams.open(task, Connection(request.environ))
        if asked.wants_stream:
            render = partial(openai_answer.render_event, answering)
            return server_sent_events(stream, render, openai_answer.render_opening(answering))
        with stream:
            turns, finished = stream.collect()
        body = openai_answer.render_answer(answering, turns, finished)
        return Response(body, mimetype="application/json")

    @routes.get("/models")
    def models() -> Response:
        shown = [openai_answer.render_model(name, started) for name in model_names()]
        return json_response({"object": "list", "data": shown})

    @routes.get("/models/<path:name>")
    def model(name: str) -> Response:
        if name not in model_names():
            raise UnknownModel(f"there is no model {show(name)}")
        return json_response(openai_answer.render_model(name, started))

    def model_names() -> tuple[str, ...]:
        """Each name once, in the order of the alphabet."""
        names = {worker.model.name for worker in streams.bus.workers() if not worker.is_leaving}
        return tuple(sorted(names))

    return routes
