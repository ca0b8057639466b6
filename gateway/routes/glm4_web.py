"""POST /chat, /book, /kernel_chat and /getbooks: the paths of ChatGlm4-Web-demo."""

from flask import Blueprint, Response, request

from contract import Finished, Task
from gateway.body import read_body
from gateway.dialects import glm4_web
from gateway.disconnect import Connection
from gateway.streaming import Streams


def glm4_web_routes(streams: Streams) -> Blueprint:
    """Build the blueprint `glm4_web`."""
    routes = Blueprint("glm4_web", __name__)

    @routes.post("/chat")
    def chat() -> Response:
        return answer_chat(glm4_web.GatewayBody)

    @routes.post("/kernel_chat")
    def kernel_chat() -> Response:
        return answer_chat(glm4_web.KernelBody)

    @routes.post("/book")
    def book() -> Response:
        return answer_book(glm4_web.GatewayBody)

    @routes.post("/getbooks")
    def getbooks() -> Response:
        return answer_book(glm4_web.KernelBody)

    def answer_chat(shape: glm4_web.BodyShape) -> Response:
        text, _ = run(glm4_web.parse_chat(read_body(request, streams.limits), shape, streams.limits))
        return Response(glm4_web.render_chat(text), mimetype="application/json")

    def answer_book(shape: glm4_web.BodyShape) -> Response:
        text, finished = run(glm4_web.parse_book(read_body(request, streams.limits), shape, streams.limits))
        return Response(glm4_web.render_book(text, finished), mimetype="application/json")

    def run(task: Task) -> tuple[str, Finished]:
        with streams.open(task, Connection(request.environ)) as stream:
            (turn,), finished = stream.collect()
        return turn.text, finished

    return routes
