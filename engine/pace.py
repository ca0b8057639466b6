"""How many rows a step may have while somebody waits for their next token. Pure: times are arguments."""

#: Seconds that a step may take while answers are being read: a longer gap is felt as a stop.
STEP_SECONDS = 0.3

#: Rows below which a step says nothing about the speed per row: it takes as long as reading the weights.
TELLING_ROWS = 64

#: Weight of the newest step in the running average of the speed.
SHARE = 0.3


class Pace:
    """Learns from the steps how many rows fit `step_seconds`; never fewer than `least_rows`."""

    def __init__(
        self, most_rows: int, *, step_seconds: float = STEP_SECONDS, least_rows: int = TELLING_ROWS
    ) -> None:
        self._most_rows = most_rows
        self._least_rows = min(least_rows, most_rows)
        self._step_seconds = step_seconds
        self._rows_per_second: float | None = None

    @property
    def rows(self) -> int:
        """Rows that a step may have."""
        if self._rows_per_second is None:
            return self._most_rows
        fitting = int(self._rows_per_second * self._step_seconds)
        return max(self._least_rows, min(fitting, self._most_rows))

    def note(self, rows: int, seconds: float) -> None:
        """Learn from a step that took so long."""
        if rows < self._least_rows or seconds <= 0:
            return
        speed = rows / seconds
        if self._rows_per_second is None:
            self._rows_per_second = speed
        else:
            self._rows_per_second += SHARE * (speed - self._rows_per_second)
