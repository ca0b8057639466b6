"""When a stream whose every event holds the whole answer so far sends the next one. Time is an argument."""

#: Seconds without a token after which the answer so far, though empty, is sent: clients give up after 5.
FIRST_EVENT_SECONDS = 2.0

#: Seconds of silence after which the answer so far is sent again: proxies cut lines after 30 or 60.
KEEP_ALIVE_SECONDS = 15.0

#: Seconds between two events. A client that takes what it reads at once as one event loses two that came
#: together; what was said in between stands in the next.
GAP_SECONDS = 0.02


class Pace:
    """An event is due when there is news, though not right after another, and before anybody gives up."""

    def __init__(self, now: float) -> None:
        self.has_news = False
        self._silent_since = now
        self._said_at: float | None = None

    @property
    def is_owed_last(self) -> bool:
        """Whether the end must still be told: something is new, or nothing was ever said."""
        return self.has_news or self._said_at is None

    def is_due(self, now: float) -> bool:
        patience = FIRST_EVENT_SECONDS if self._said_at is None else KEEP_ALIVE_SECONDS
        return (self.has_news and not self.seconds_to_gap(now)) or now - self._silent_since >= patience

    def seconds_to_gap(self, now: float) -> float:
        """Return how long to wait until an event does not come together with the one before."""
        return 0.0 if self._said_at is None else max(0.0, self._said_at + GAP_SECONDS - now)

    def note(self, now: float) -> None:
        """An event is being sent."""
        self._said_at = self._silent_since = now
        self.has_news = False
