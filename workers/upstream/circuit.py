"""Decides when a dead upstream is left alone, and when one request looks whether it is back."""

#: Failures in a row after which requests are no longer sent.
FAILURES_TO_OPEN = 5

#: Seconds until the first look at an upstream that was given up; the pause doubles with each that fails.
FIRST_PAUSE_SECONDS = 1.0

#: Seconds of the longest pause: so long an upstream that is back may go unnoticed.
LONGEST_PAUSE_SECONDS = 30.0

#: Seconds after which a caller may come again while another's request looks whether the upstream is back.
PROBE_SECONDS = 1.0


class Circuit:
    """Closed while the upstream answers, open after failures in a row, half open for one probe at a time.

    Times are seconds of one clock that never goes back. Whoever was admitted says how it ended, with
    exactly one of `succeed`, `fail` and `leave`.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._opens_at: float | None = None  # when the next probe may go out; None while closed
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        return self._opens_at is not None

    def admit(self, now: float) -> float:
        """Return 0.0 if a request may go out now, else the seconds after which to come again."""
        if self._opens_at is None:
            return 0.0
        if self._is_probing:
            return PROBE_SECONDS
        if now < self._opens_at:
            return self._opens_at - now
        self._is_probing = True
        return 0.0

    def succeed(self) -> None:
        """The upstream answered: close."""
        self._failures = 0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._opens_at = None
        self._is_probing = False

    def fail(self, now: float) -> None:
        """The upstream did not answer: open after too many times, for longer after each probe."""
        self._failures += 1
        if self._is_probing:
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        elif self._opens_at is not None or self._failures < FAILURES_TO_OPEN:
            return  # a request that went out before it opened tells nothing new
        self._is_probing = False
        self._opens_at = now + self._pause_seconds

    def leave(self) -> None:
        """The caller went away before anything was known: another may probe."""
        self._is_probing = False
