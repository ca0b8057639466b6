"""Reads a request's body: JSON only, and never more of it than the limit."""

from flask import Request

from contract import BodyTooLarge, InvalidRequest
from gateway.limits import Limits


def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body, or raise BodyTooLarge before it is read whole."""
    if request.mimetype != "application/json":
        got = request.mimetype or "none"
        raise InvalidRequest(f"Content-Type: must be application/json, got {got[:100]}")
    # Werkzeug refuses an announced length over the maximum, but cuts a chunked body there without a
    # word: the byte beyond the limit tells the two apart.
    request.max_content_length = limits.body_bytes + 1
    body = request.get_data(cache=False)
    if len(body) > limits.body_bytes:
        raise BodyTooLarge(f"body: must be at most {limits.body_bytes} bytes")
    return body
