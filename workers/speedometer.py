"""Counts what a worker generates and how long that takes. Time is an argument."""

from contract import Speed


class Speedometer:
    """Of each answer it is told the first token, those after it, and the end."""

    def __init__(self) -> None:
        self._first_tokens = 0
        self._first_token_seconds = 0.0
        self._later_tokens = 0
        self._later_seconds = 0.0
        self._under_way = 0
        self._busy_since = 0.0

    def note_first(self, waited_seconds: float, now: float) -> None:
        """An answer's first token came, so long after its task."""
        self._first_tokens += 1
        self._first_token_seconds += waited_seconds
        if not self._under_way:
            self._busy_since = now
        self._under_way += 1

    def note_later(self, tokens: int) -> None:
        """So many more came of an answer that has begun."""
        self._later_tokens += tokens

    def note_end(self, now: float) -> None:
        """An answer that had begun is over, whole or not."""
        self._under_way -= 1
        if not self._under_way:
            self._later_seconds += now - self._busy_since

    def read(self, now: float) -> Speed:
        """Return what was counted up to now."""
        since = now - self._busy_since if self._under_way else 0.0
        return Speed(
            first_tokens=self._first_tokens,
            first_token_seconds=self._first_token_seconds,
            later_tokens=self._later_tokens,
            later_seconds=self._later_seconds + since,
        )
