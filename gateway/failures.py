"""The only place that chooses status codes: every failure becomes one JSON answer and one log line."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from contract import BodyTooLarge, Failed, MethodNotAllowed, RequestError, ServingError, UnknownRoute
from gateway.dialects import chatglm2, native, openai_answer, yuan
from gateway.streaming import ClientGone, TaskFailed

logger = logging.getLogger(__name__)

#: Statuses that tell the caller when to come back, even if nobody knows exactly.
RETRY_STATUSES = frozenset({503})

#: What the log says of a client that hung up; nginx' number, as HTTP has none.
CLIENT_GONE_STATUS = 499

#: Characters of a path in a log line.
LOGGED_PATH_CHARACTERS = 200


#: How a failure is written, by the beginning of the path: the first that fits.
FORMS: tuple[tuple[str, Callable[[Failed], dict[str, Any]]], ...] = (
    ("/v1/", openai_answer.render_failed),
    ("/yuan", yuan.render_failed),
    ("/", native.render_failed),
)

#: Paths whose clients read no JSON: how a failure is written there, and what that is.
TEXT_FORMS: dict[str, tuple[Callable[[Failed], bytes], str]] = {
    "/stream": (chatglm2.render_failed_event, "text/event-stream"),
    "/generate": (chatglm2.render_failed, "text/plain"),
    "/sse/subscribe": (lambda failed: yuan.render_failed_event(failed, time.time()), "text/event-stream"),
}


class Caller(NamedTuple):
    """What the log may know of a request; never its body, query or keys."""

    method: str
    path: str


def this_caller() -> Caller:
    """Return the caller of the request at hand, on one line whatever the path holds."""
    return Caller(request.method[:20], quote(request.path)[:LOGGED_PATH_CHARACTERS])


def answer_failures(app: Flask) -> None:
    """Answer whatever a route raises, and requests that reach no route."""

    @app.errorhandler(TaskFailed)
    def task_failed(error: TaskFailed) -> Response:
        return _answer(error.failed, error.task_id)

    @app.errorhandler(ServingError)
    def serving_error(error: ServingError) -> Response:
        return _answer(Failed.from_error(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return _answer_http(error, app.config["MAX_CONTENT_LENGTH"])

    @app.errorhandler(ClientGone)
    def client_gone(error: ClientGone) -> Response:
        log_client_gone(this_caller(), error.task_id)
        return Response(status=CLIENT_GONE_STATUS)

    @app.errorhandler(Exception)
    def internal_error(error: Exception) -> Response:
        logger.error("internal error", exc_info=error)
        return _answer(Failed.from_error(error))


def failure_response(failed: Failed) -> Response:
    """Return a failure in the form of the path's protocol, with its status and headers."""
    body, mimetype = _written(failed, request.path)
    response = Response(body, failed.status, mimetype=mimetype)
    if failed.retry_after_seconds is not None or failed.status in RETRY_STATUSES:
        response.headers["Retry-After"] = str(max(1, math.ceil(failed.retry_after_seconds or 1)))
    if failed.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def log_failure(caller: Caller, failed: Failed, task_id: str = "-") -> None:
    """Write the one line that a failure leaves: the caller's own in full calm, ours as a warning."""
    level = logging.WARNING if failed.status >= 500 else logging.INFO
    logger.log(level, "failed: %s %s %s %d task %s", *caller, failed.code, failed.status, task_id)


def log_client_gone(caller: Caller, task_id: str) -> None:
    logger.info("failed: %s %s client_gone %d task %s", *caller, CLIENT_GONE_STATUS, task_id)


def _written(failed: Failed, path: str) -> tuple[bytes, str]:
    if path in TEXT_FORMS:
        render_text, mimetype = TEXT_FORMS[path]
        return render_text(failed), mimetype
    render = next(form for prefix, form in FORMS if path.startswith(prefix))
    return msgspec.json.encode(render(failed)), "application/json"


def _answer(failed: Failed, task_id: str = "-") -> Response:
    log_failure(this_caller(), failed, task_id)
    return failure_response(failed)


def _answer_http(error: HTTPException, body_bytes: int) -> Response:
    response = _answer(Failed.from_error(_known_error(error, body_bytes)))
    if isinstance(error, WrongMethod) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _known_error(error: HTTPException, body_bytes: int) -> ServingError:
    match error.code:
        case 404:
            return UnknownRoute("no such path; see / for what there is")
        case 405:
            return MethodNotAllowed(f"this path does not take {request.method[:20]}; see the header Allow")
        case 413:
            return BodyTooLarge(f"body: must be at most {body_bytes} bytes")
        case _:
            return RequestError("the request could not be read to its end")
