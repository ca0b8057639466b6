"""Reads a request's body, never more of it than the limit."""

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from contract import BodyTooLarge, InvalidRequest
from gateway.limits import Limits


def read_body(request: Request, limits: Limits) -> bytes:
    """Return the JSON body, or raise BodyTooLarge before it is read whole."""
    if request.mimetype != "application/json":
        got = request.mimetype or "none"
        raise InvalidRequest(f"Content-Type: must be application/json, got {got[:100]}")
    return read_bytes(request, limits)


def read_bytes(request: Request, limits: Limits) -> bytes:
    """Return the body, whatever it is said to be, or raise BodyTooLarge before it is read whole."""
    # Werkzeug refuses an announced length over the maximum, but cuts a chunked body there without a
    # word: the byte beyond the limit tells the two apart.
    request.max_content_length = limits.body_bytes + 1
    too_large = BodyTooLarge(f"body: must be at most {limits.body_bytes} bytes")
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise too_large from None
    if len(body) > limits.body_bytes:
        raise too_large
    return body
