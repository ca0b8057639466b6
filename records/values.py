"""Column values as JSON can say them, and as a model can."""

import json
import math
from datetime import date, datetime, time
from typing import Any

from contract import Scalar


def to_scalar(value: Any) -> Scalar:
    """Turn what a driver returns into a value that JSON can say.

    Text, whole numbers and truth values stay; so do floats, but infinities and NaN become None. Decimals
    become text with all their digits, dates and times ISO 8601 text, bytes hexadecimal text, lists and
    objects (PostgreSQL's arrays and JSON) JSON text, anything else the text that Python has for it.
    """
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case list() | dict():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)


def to_text(value: Scalar) -> str:
    """Return the text that a model chooses for a value: itself, or its JSON form; "" for None."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)
