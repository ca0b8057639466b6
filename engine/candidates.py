"""Tokens that may come next with their scores, and what the filters leave of them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract import Sampling

#: Scores that belong together where sums and bounds are worked out block by block: some 300 blocks
#: for the vocabularies of today.
BLOCK_SCORES = 512

#: How many of the most probable tokens are tried for top_p, before all are looked at.
FIRST_NUCLEUS = 128

#: Slices of the probabilities from which top_p finds its cut: so many per factor e, and at most.
SLICES_PER_E = 32
MOST_SLICES = 2048

#: Below every score that stands for a chance: only -inf, which stands for none, is less.
LEAST_SCORE = float(np.finfo(np.float32).min)

Scores = NDArray[np.float32]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Scores of tokens (logits, as far as they are settled) and their ids, ascending; None means all ids.

    They have an order: by score, of equal ones the lower id first. Each filter keeps a beginning of
    that order, so that an answer does not depend on how a sort treats equals. Nothing here looks at
    anything but this one row.
    """

    scores: Scores
    ids: Places | None = None

    @property
    def best(self) -> int:
        """The first token of the order; if any score is not a number, one of these."""
        return self._id(int(self.scores.argmax()))

    @property
    def has_chances(self) -> bool:
        """Whether one may be chosen: all scores are numbers or -inf, and one of them is finite."""
        return self.scores.size > 0 and math.isfinite(self.scores.max())

    def filtered(self, sampling: Sampling) -> "Candidates":
        """Keep what top_k, top_p and min_p leave, one after the other, each of what the one before left.

        That is their order in Hugging Face's and vLLM's samplers too.
        """
        kept, temperature = self, sampling.temperature
        if 0 < sampling.top_k < kept.scores.size:
            kept = kept._at(leading(kept.scores, sampling.top_k))
        if sampling.top_p < 1:
            kept = kept._at(nucleus(kept.scores, sampling.top_p, temperature))
        if sampling.min_p > 0:
            bound = kept.scores.max() + temperature * math.log(sampling.min_p)
            kept = kept._at(np.flatnonzero(kept.scores >= np.float32(bound)))
        return kept

    def draw(self, temperature: float, noise: float) -> int:
        """Return the token at which the cumulated probabilities, by ids, pass the noise in [0, 1)."""
        return self._id(draw(weights_of(self.scores, temperature), noise))

    def _at(self, places: Places) -> "Candidates":
        return Candidates(self.scores[places], places if self.ids is None else self.ids[places])

    def _id(self, place: int) -> int:
        return place if self.ids is None else int(self.ids[place])


def leading(scores: Scores, count: int) -> Places:
    """Return the places of the `count` greatest scores, ascending; of equal ones the first, never -inf."""
    places: Places = np.flatnonzero(scores >= max(_reached_by(scores, count), LEAST_SCORE))
    if places.size <= count:
        return places
    found = scores[places]
    least = np.partition(found, -count)[-count]
    keep = found > least
    ties = np.flatnonzero(found == least)
    keep[ties[: count - np.count_nonzero(keep)]] = True
    chosen: Places = places[keep]
    return chosen


def nucleus(scores: Scores, top_p: float, temperature: float) -> Places:
    """Return the places of the fewest most probable that have `top_p` together, ascending; at least one.

    Mostly few tokens have nearly all of the probability: these are looked at first.
    """
    weights = weights_of(scores, temperature)
    target = top_p * total_of(weights)
    places = leading(scores, FIRST_NUCLEUS)
    reached = float(weights[places].sum(dtype=np.float64))
    if reached >= target:
        return _shortest(scores, weights, places, target)
    return _nucleus_by_slices(scores, weights, target, temperature)


def weights_of(scores: Scores, temperature: float) -> Scores:
    """Return numbers in proportion to the probabilities at this temperature; the greatest is 1."""
    weights: Scores = np.subtract(scores, scores.max())
    if temperature != 1:
        weights *= np.float32(1 / temperature)
    return np.exp(weights, out=weights)


def total_of(weights: Scores) -> float:
    """Return the sum; it depends on the weights alone, not on where they lie in memory."""
    return float(_block_sums(weights)[-1])


def draw(weights: Scores, noise: float) -> int:
    """Return the place where the cumulated weights pass the noise, a number in [0, 1).

    First the block is found, then the place in it: only these few sums are made in double precision.
    What has no weight is never drawn.
    """
    sums = _block_sums(weights)
    target = noise * float(sums[-1])
    block = int(np.searchsorted(sums, target, side="right"))
    before = float(sums[block - 1]) if block else 0.0
    inside = weights[block * BLOCK_SCORES : (block + 1) * BLOCK_SCORES]
    place = int(np.searchsorted(before + np.cumsum(inside, dtype=np.float64), target, side="right"))
    if place >= inside.size:
        place = int(np.flatnonzero(inside)[-1])
    return block * BLOCK_SCORES + place


def _block_sums(weights: Scores) -> NDArray[np.float64]:
    """Return what is reached at the end of each block."""
    starts = np.arange(0, weights.size, BLOCK_SCORES)
    return np.add.reduceat(weights, starts).cumsum(dtype=np.float64)


def _reached_by(scores: Scores, count: int) -> float:
    """Return a number that at least `count` scores reach, and not many more where that comes cheaply."""
    if count >= scores.size:
        return -math.inf
    heads = np.maximum.reduceat(scores, np.arange(0, scores.size, BLOCK_SCORES))
    if count > heads.size:
        heads = scores
    return float(np.partition(heads, -count)[-count])


def _shortest(scores: Scores, weights: Scores, places: Places, target: float) -> Places:
    """Return the first places, in the order of the scores, whose weights reach the target, or all."""
    order = places[np.argsort(-scores[places], kind="stable")]
    reached = np.cumsum(weights[order], dtype=np.float64)
    return np.sort(order[: int(np.searchsorted(reached, target)) + 1])


def _nucleus_by_slices(scores: Scores, weights: Scores, target: float, temperature: float) -> Places:
    """Slice the scores by height and sort only the slice in which the target is reached."""
    depths = (scores.max() - scores) * np.float32(SLICES_PER_E / temperature)
    slices = np.minimum(depths, np.float32(MOST_SLICES - 1)).astype(np.int64)
    reached = np.bincount(slices, weights).cumsum()
    cut = int(np.searchsorted(reached, target))
    before = float(reached[cut - 1]) if cut else 0.0
    rest = _shortest(scores, weights, np.flatnonzero(slices == cut), target - before)
    kept = slices < cut
    kept[rest] = True
    return np.flatnonzero(kept)
