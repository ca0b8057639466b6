"""Finds the letter in an answer."""

import re
from collections.abc import Callable, Mapping

from evals.ceval.questions import LETTERS

#: A letter that is no part of a Latin word.
_LONE_LETTER = re.compile(r"(?<![A-Za-z])[ABCD](?![A-Za-z])")


def last_letter(answer: str) -> str | None:
    """Return the answer's last character, as the clients of the WebSocket protocol do, if it is a letter."""
    return answer[-1:] if answer[-1:] in LETTERS else None


def first_letter(answer: str) -> str | None:
    """Return the first A, B, C or D that is no part of a Latin word."""
    found = _LONE_LETTER.search(answer)
    return found[0] if found else None


#: How a letter can be read out of an answer.
READINGS: Mapping[str, Callable[[str], str | None]] = {"last": last_letter, "first": first_letter}
