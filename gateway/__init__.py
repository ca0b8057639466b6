"""Everything that speaks HTTP: routes, dialects, streaming, failures, limits and the web page."""

from gateway.app import create_app
from gateway.limits import Limits

__all__ = ["Limits", "create_app"]
