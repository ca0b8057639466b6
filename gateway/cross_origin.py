"""Lets web pages of any origin use the paths of protocols whose clients live on other servers."""

from collections.abc import Set

from flask import Flask, Response, request

#: What a browser is told; for 600 s it need not ask again.
HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Expose-Headers": "X-Task-Id",
    "Access-Control-Max-Age": "600",
}


def allow_any_origin(app: Flask, paths: Set[str]) -> None:
    """Answer requests for these paths, refused ones too, with leave for every origin."""

    @app.after_request
    def allow(response: Response) -> Response:
        if request.path in paths:
            response.headers.extend(HEADERS)
        return response
