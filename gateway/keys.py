"""Lets a request pass only with one of the operator's API keys, where there are any."""

import hmac
from collections.abc import Sequence

from flask import Flask, request

from contract import Unauthorized

#: Endpoints that anybody may see: the page, its files, and what a load balancer asks.
OPEN_ENDPOINTS = frozenset({"status.start", "status.healthz", "status.readyz", "static"})


def require_keys(app: Flask, keys: Sequence[str]) -> None:
    """Ask every request but those for open endpoints for `Authorization: Bearer KEY`."""
    if not keys:
        return

    @app.before_request
    def check_key() -> None:
        if request.endpoint not in OPEN_ENDPOINTS:
            check_authorization(request.headers.get("Authorization", ""), keys)


def check_authorization(header: str, keys: Sequence[str]) -> None:
    """Raise Unauthorized unless the header holds a known key; takes as long for each wrong one."""
    scheme, _, shown = header.partition(" ")
    given = shown.strip().encode()
    known = [hmac.compare_digest(given, key.encode()) for key in keys]
    if scheme.lower() != "bearer" or not any(known):
        raise Unauthorized("send an API key that this server knows, as `Authorization: Bearer KEY`")
