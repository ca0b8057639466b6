"""GET / and what people and load balancers ask: is it alive, is it ready, who works for it."""

from pathlib import Path
from typing import Any

import msgspec
from flask import Blueprint, Response, request, send_from_directory

from contract import Draining, Failed, NoWorker
from gateway.failures import failure_response
from gateway.streaming import Streams

#: Where the page for people lies.
WEB_FOLDER = Path(__file__).parents[2] / "templates" / "web"


def status_routes(streams: Streams) -> Blueprint:
    """Build the blueprint `status`."""
    routes = Blueprint("status", __name__)

    @routes.get("/")
    def start() -> Response:
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
            response = send_from_directory(WEB_FOLDER, "index.html")
        else:
            response = json_response({"message": "Server started", "success": True})
        response.vary.add("Accept")
        return response

    @routes.get("/healthz")
    def healthz() -> Response:
        return json_response({"status": "alive"})

    @routes.get("/readyz")
    def readyz() -> Response:
        """Not being ready is an answer, asked for every few seconds: it leaves no line in the log."""
        if streams.is_draining:
            return failure_response(Failed.from_error(Draining("the server is shutting down")))
        if all(worker.is_leaving for worker in streams.bus.workers()):
            return failure_response(Failed.from_error(NoWorker("no worker with a loaded model is connected")))
        return json_response({"status": "ready"})

    @routes.get("/workers")
    def workers() -> Response:
        return json_response({"workers": streams.bus.workers()})

    return routes


def json_response(value: Any) -> Response:
    """Return a value as compact JSON, other than Flask's with its characters as they are."""
    return Response(msgspec.json.encode(value), mimetype="application/json")
