"""Tells how far a load has come: a log line every few seconds, none where it is done sooner."""

import logging
import time
from collections.abc import Callable

from engine.loading.sizes import gigabytes

logger = logging.getLogger(__name__)

#: Seconds between two lines: often enough to see that it moves, seldom enough not to fill a log.
LINE_SECONDS = 2.0


class Progress:
    """Counts the bytes that are loaded out of `total_bytes`."""

    def __init__(self, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_bytes = total_bytes
        self._clock = clock
        self._loaded_bytes = 0
        self._last_line = clock()

    def add(self, loaded_bytes: int) -> None:
        """Count, and say how far it is if it is time to."""
        self._loaded_bytes += loaded_bytes
        now = self._clock()
        if now - self._last_line < LINE_SECONDS:
            return
        self._last_line = now
        share = 100 * self._loaded_bytes // max(1, self._total_bytes)
        logger.info(
            "Loading: %d %% (%s of %s)",
            min(100, share),
            gigabytes(self._loaded_bytes),
            gigabytes(self._total_bytes),
        )
