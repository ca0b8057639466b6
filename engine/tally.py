"""Which tokens a sequence holds and how often its answer says each, counted as they come."""

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

#: Distinct tokens that there is room for at first; the room doubles whenever it is used up.
FIRST_ROOM = 64


class Tally:
    """The distinct tokens of prompt and answer, each with its number of times in the answer.

    It costs nothing until it is asked, and then only what was not counted yet.
    """

    __slots__ = ("_counted", "_ids", "_places", "_times")

    def __init__(self) -> None:
        self._counted = 0
        self._places: dict[int, int] = {}
        self._ids = np.empty(FIRST_ROOM, np.int64)
        self._times = np.zeros(FIRST_ROOM, np.float32)

    def update(self, tokens: Items[int], prompt_tokens: int) -> None:
        """Count the tokens that came since the last time; the first `prompt_tokens` are the prompt."""
        if self._counted < prompt_tokens:
            self._add(list(dict.fromkeys(tokens[self._counted : prompt_tokens])))
            self._counted = prompt_tokens
        for token in tokens[self._counted :]:
            if token not in self._places:
                self._add([token])
            self._times[self._places[token]] += 1
        self._counted = len(tokens)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The distinct tokens of prompt and answer, in the order in which they came."""
        return self._ids[: len(self._places)]

    @property
    def times(self) -> NDArray[np.float32]:
        """How often the answer says each of `ids`; 0 for those that only the prompt says."""
        return self._times[: len(self._places)]

    def _add(self, distinct: list[int]) -> None:
        first = len(self._places)
        self._make_room(first + len(distinct))
        self._ids[first : first + len(distinct)] = distinct
        self._places.update(zip(distinct, range(first, first + len(distinct)), strict=True))

    def _make_room(self, needed: int) -> None:
        room = self._ids.size
        if needed > room:
            more = max(needed, 2 * room) - room
            self._ids = np.concatenate([self._ids, np.empty(more, np.int64)])
            self._times = np.concatenate([self._times, np.zeros(more, np.float32)])
