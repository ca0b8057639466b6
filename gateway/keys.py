"""Who asks: lets a request pass only with one of the operator's API keys, where there are any."""

import hashlib
import hmac
from collections.abc import Sequence

from flask import Flask, Request, request

from contract import Unauthorized

#: Endpoints that anybody may see: the page, its files, and what a load balancer asks.
OPEN_ENDPOINTS = frozenset({"status.start", "status.healthz", "status.readyz", "static"})


def require_keys(app: Flask, keys: Sequence[str]) -> None:
    """Ask every request but those for open endpoints for `Authorization: Bearer KEY`."""
    if not keys:
        return

    @app.before_request
    def check_key() -> None:
        # A browser asks what it may send (OPTIONS, answered by Flask itself) before it shows a key.
        if request.endpoint not in OPEN_ENDPOINTS and request.method != "OPTIONS":
            check_authorization(request.headers.get("Authorization", ""), keys)


def check_authorization(header: str, keys: Sequence[str]) -> None:
    """Raise Unauthorized unless the header holds a known key; takes as long for each wrong one."""
    scheme, _, shown = header.partition(" ")
    given = shown.strip().encode()
    known = [hmac.compare_digest(given, key.encode()) for key in keys]
    if scheme.lower() != "bearer" or not any(known):
        raise Unauthorized("send an API key that this server knows, as `Authorization: Bearer KEY`")


def caller_of(request: Request) -> str:
    """Return 64 hexadecimal digits, equal for requests with the same key, else from the same address."""
    _, _, key = request.headers.get("Authorization", "").partition(" ")
    shown = f"key {key.strip()}" if key.strip() else f"address {request.remote_addr}"
    return hashlib.sha256(shown.encode()).hexdigest()
