"""Puts a gateway together: routes, keys, limits and failures around one bus."""

from flask import Flask, Response

from gateway.cross_origin import allow_any_origin
from gateway.failures import answer_failures
from gateway.keys import require_keys
from gateway.limits import Limits
from gateway.routes.chatglm2 import PATHS as CHATGLM2_PATHS
from gateway.routes.chatglm2 import chatglm2_routes
from gateway.routes.glm4_web import glm4_web_routes
from gateway.routes.openai import openai_routes
from gateway.routes.status import WEB_FOLDER, status_routes
from gateway.routes.tasks import task_routes
from gateway.routes.websocket import answer_websockets
from gateway.routes.yuan import yuan_routes
from gateway.streaming import Bus, Streams

#: Where the application keeps its streams, for the server that drains them.
STREAMS = "lectern.streams"

#: Sent with every answer: the page loads nothing from elsewhere, and no file passes for another kind.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(bus: Bus, limits: Limits | None = None) -> Flask:
    """Return the application that serves the tasks of one bus within the limits."""
    streams = Streams(bus, limits or Limits())
    app = Flask("gateway", static_folder=WEB_FOLDER, static_url_path="/static", template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = streams.limits.body_bytes
    app.url_map.merge_slashes = False
    app.extensions[STREAMS] = streams
    require_keys(app, streams.limits.api_keys)
    answer_failures(app)
    answer_websockets(app, streams)
    app.register_blueprint(status_routes(streams))
    app.register_blueprint(task_routes(streams))
    app.register_blueprint(openai_routes(streams))
    app.register_blueprint(glm4_web_routes(streams))
    app.register_blueprint(chatglm2_routes(streams))
    app.register_blueprint(yuan_routes(streams))
    allow_any_origin(app, CHATGLM2_PATHS)
    app.after_request(_secure)
    return app


def _secure(response: Response) -> Response:
    response.headers.extend(SECURITY_HEADERS)
    return response
