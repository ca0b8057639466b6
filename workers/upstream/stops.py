"""Cuts a growing text: at its first stop string, and by what a server says again at its beginning."""

from collections.abc import Sequence


class StopCut:
    """The text of one answer as it grows."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_cut = False

    def feed(self, text: str) -> str:
        """Return what of the text may be shown now."""
        if self.is_cut:
            return ""
        self._held += text
        ends = [end for end in (self._held.find(stop) for stop in self._stops) if end >= 0]
        if ends:
            self.is_cut = True
            return self._release(min(ends))
        return self._release(len(self._held) - self._beginning())

    def flush(self) -> str:
        """Return what was held back: the answer is over without a stop string."""
        return "" if self.is_cut else self._release(len(self._held))

    def _release(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        return shown

    def _beginning(self) -> int:
        """Return how many characters at the end may begin a stop string."""
        longest = max((len(stop) for stop in self._stops), default=0) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


class EchoCut:
    """Takes off the beginning of a text where it says again how the answer had begun."""

    def __init__(self, begun: str) -> None:
        self._left = begun
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what of the text is new."""
        self._held += text
        if self._left.startswith(self._held) and self._held != self._left:
            return ""
        shown, self._held = self._held.removeprefix(self._left), ""
        self._left = ""
        return shown

    def flush(self) -> str:
        """Return what was held back: the text ended before it had said everything again."""
        shown, self._held = self._held, ""
        return shown
