"""Token ids to text, in whole characters, with stop strings held back until it is sure that they are none."""

import codecs
from collections.abc import Sequence

from grammar import Vocabulary


class Detokenizer:
    """The text side of one answer. What it says follows from the ids fed to it, nothing else.

    `is_exact` keeps a space at the answer's start, which some tokenizers put there by themselves.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = (), *, is_exact: bool = False) -> None:
        self._vocabulary = vocabulary
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._is_first = not is_exact
        self.found_stop = False

    def feed(self, ids: Sequence[int], *, may_stop: bool = True) -> str:
        """Return the text that the ids make printable.

        A character that is still split over tokens waits for its last byte. From a stop string on
        nothing is returned, and `found_stop` is true; but what comes before the answer `may_stop` is
        text like any other.
        """
        if self.found_stop:
            return ""
        text = self._decoder.decode(self._vocabulary.bytes_of(ids))
        if self._is_first and text:
            self._is_first = False
            if self._vocabulary.drops_first_space:
                text = text.removeprefix(" ")
        self._held += text
        return self._release() if may_stop else self.finish()

    def finish(self) -> str:
        """Return the text held back in case it had become a stop string; half a character is dropped."""
        held, self._held = self._held, ""
        return "" if self.found_stop else held

    def _release(self) -> str:
        found = [(place + len(stop), place) for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            # The one that is whole first, as if the text came character by character.
            _, place = min(found)
            self.found_stop = True
            text, self._held = self._held[:place], ""
            return text
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the stop string."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
