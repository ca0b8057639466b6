"""Counting how well answers of titles fit: precision, recall, F1, and how often "none" is recognised."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass
class Tally:
    """Sums over many wishes; the shares are 1 where nothing was asked."""

    wishes: int = 0
    exact: int = 0
    found: int = 0
    missed: int = 0
    wrong: int = 0
    none_asked: int = 0
    none_answered: int = 0

    def count(self, answer: Collection[str], fitting: Collection[str]) -> None:
        """Add one answer. Exact means: the fitting titles, all of them, in their order."""
        self.wishes += 1
        self.exact += list(answer) == list(fitting)
        self.found += len(set(answer) & set(fitting))
        self.missed += len(set(fitting) - set(answer))
        self.wrong += len(set(answer) - set(fitting))
        if not fitting:
            self.none_asked += 1
            self.none_answered += not answer

    @property
    def precision(self) -> float:
        """Which share of the answered titles fits."""
        return _share(self.found, self.found + self.wrong)

    @property
    def recall(self) -> float:
        """Which share of the fitting titles was answered."""
        return _share(self.found, self.found + self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, over all titles together."""
        return _share(2 * self.found, 2 * self.found + self.wrong + self.missed)

    @property
    def none_recognised(self) -> float:
        """How many of the wishes that no title fits were answered with none."""
        return _share(self.none_answered, self.none_asked)

    @property
    def exact_share(self) -> float:
        """How many answers were right to the letter."""
        return _share(self.exact, self.wishes)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
