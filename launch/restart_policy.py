"""Whether and when a process that died is started again."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Restart:
    """Start it again after a pause."""

    after_seconds: float


@dataclass(frozen=True)
class GiveUp:
    """Leave it dead, for this reason."""

    reason: str


Verdict = Restart | GiveUp


@dataclass(frozen=True)
class RestartPolicy:
    """Pauses that double from the first to the longest, and an end to patience.

    A life of `long_life_seconds` forgives all earlier deaths; `patience` quick deaths in a row are enough.
    """

    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30.0
    long_life_seconds: float = 60.0
    patience: int = 5

    def count(self, quick_deaths: int, lived_seconds: float) -> int:
        """Return how many quick deaths in a row there are after one more death."""
        return 1 if lived_seconds >= self.long_life_seconds else quick_deaths + 1

    def judge(self, quick_deaths: int, exit_status: int) -> Verdict:
        """Decide after a death; `quick_deaths` counts it already."""
        if exit_status == os.EX_CONFIG:
            return GiveUp("it can never start as it is set up")
        if quick_deaths >= self.patience:
            return GiveUp(f"it died {quick_deaths} times in a row")
        pause = self.first_pause_seconds * 2 ** (quick_deaths - 1)
        return Restart(min(pause, self.longest_pause_seconds))
