"""The filters and the draw, each against a direct computation."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contract import Sampling
from engine.candidates import BLOCK_SCORES, FIRST_NUCLEUS, Candidates, draw, leading, nucleus, weights_of
from engine.noise import uniform
from tests.properties import examples

#: Some are equal, some have no chance.
SCORES = st.lists(
    st.one_of(st.integers(-400, 400).map(lambda number: number / 10), st.just(-math.inf)),
    min_size=1,
    max_size=30,
).filter(lambda scores: max(scores) > -math.inf)

#: More scores than any of the short cuts looks at.
MANY = 6 * BLOCK_SCORES + 77


def direct_chances(scores, sampling):
    """What the settings mean, one token at a time in double precision."""
    chances = normalized([math.exp((score - max(scores)) / sampling.temperature) for score in scores])
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    if sampling.top_k:
        chances = only(chances, order[: sampling.top_k])
    kept, reached = [], 0.0
    for place in order:
        if reached >= sampling.top_p:
            break
        kept.append(place)
        reached += chances[place]
        # Where the cut falls exactly between two tokens, rounding decides.
        assume(sampling.top_p == 1 or abs(reached - sampling.top_p) > 1e-6)
    chances = only(chances, kept)
    return only(chances, [p for p in order if chances[p] >= sampling.min_p * max(chances)])


def normalized(numbers):
    return [number / sum(numbers) for number in numbers]


def only(chances, places):
    return normalized([chance if place in set(places) else 0.0 for place, chance in enumerate(chances)])


def chances_of(scores, sampling):
    candidates = Candidates(np.array(scores, np.float32)).filtered(sampling)
    weights = weights_of(candidates.scores, sampling.temperature)
    chances = np.zeros(len(scores))
    chances[slice(None) if candidates.ids is None else candidates.ids] = weights / weights.sum()
    return chances.tolist()


def many_scores(seed, spread):
    """Return scores of a thousand levels, so that many are equal."""
    return np.random.default_rng(seed).normal(0, spread, MANY).round(2).astype(np.float32)


@examples(200)
@given(
    scores=SCORES,
    temperature=st.sampled_from([0.1, 0.5, 1.0, 2.0]),
    top_k=st.integers(0, 40),
    top_p=st.sampled_from([0.013, 0.37, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.0173, 0.61, 1.0]),
)
def test_the_filters_do_what_they_say(scores, temperature, top_k, top_p, min_p):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    chances = chances_of(scores, sampling)
    assert chances == pytest.approx(direct_chances(scores, sampling), rel=2e-3, abs=1e-6)


def test_known_chances_are_filtered_one_after_the_other():
    scores = np.log([0.4, 0.3, 0.2, 0.1])

    def chances(**options):
        return [round(chance, 4) for chance in chances_of(scores, Sampling(temperature=1, **options))]

    assert chances() == [0.4, 0.3, 0.2, 0.1]
    assert chances(top_k=2) == [0.5714, 0.4286, 0, 0]
    assert chances(top_p=0.69) == [0.5714, 0.4286, 0, 0]
    assert chances(top_p=0.71) == [0.4444, 0.3333, 0.2222, 0]
    assert chances(min_p=0.7) == [0.5714, 0.4286, 0, 0]
    assert chances(top_k=3, top_p=0.8, min_p=0.7) == [0.5714, 0.4286, 0, 0]
    assert chances(top_k=1) == chances(top_p=1e-6) == chances(min_p=1) == [1, 0, 0, 0]
    assert chances(top_k=4) == chances(top_k=1000) == chances()


def test_of_equal_scores_the_lower_ids_are_kept():
    scores = [1.0, 3.0, 3.0, 2.0, 3.0]
    assert chances_of(scores, Sampling(temperature=1, top_k=2)) == [0, 0.5, 0.5, 0, 0]
    assert chances_of(scores, Sampling(temperature=1, top_p=0.5)) == [0, 0.5, 0.5, 0, 0]
    assert chances_of(scores, Sampling(temperature=1, top_k=1)) == [0, 1, 0, 0, 0]
    assert Candidates(np.array(scores, np.float32)).best == 1


def test_filters_keep_the_ids_of_a_constraint():
    candidates = Candidates(np.array([1, 5, 4, 0], np.float32), np.array([3, 10, 11, 90]))
    kept = candidates.filtered(Sampling(temperature=1, top_k=3, top_p=0.99, min_p=0.001))
    assert kept.ids.tolist() == [3, 10, 11]
    assert kept.best == 10
    assert {kept.draw(1, uniform(0, 0, position)) for position in range(500)} == {3, 10, 11}


@pytest.mark.parametrize("count", [1, 2, 7, 8, 500, MANY - 1, MANY, MANY + 1])
@pytest.mark.parametrize("spread", [0.0, 0.02, 3.0])
def test_the_leading_scores_are_those_of_a_full_sort(count, spread):
    scores = many_scores(count, spread)
    order = np.argsort(-scores, kind="stable")
    assert leading(scores, count).tolist() == sorted(order[:count].tolist())


def test_what_has_no_chance_does_not_lead():
    scores = np.full(MANY, -np.inf, np.float32)
    scores[[5, 700, 701]] = [1, 3, 2]
    assert leading(scores, 2).tolist() == [700, 701]
    assert leading(scores, 40).tolist() == leading(scores, MANY).tolist() == [5, 700, 701]


@examples(60)
@given(
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.0, 0.3, 2.0, 5.0]),
    temperature=st.sampled_from([0.01, 0.7, 1.0, 2.0]),
    top_p=st.floats(0.001, 0.999),
)
def test_the_nucleus_is_that_of_a_full_sort(seed, spread, temperature, top_p):
    scores = many_scores(seed, spread)
    order = np.argsort(-scores, kind="stable")
    exact = np.exp((scores[order].astype(float) - scores.max()) / temperature)
    reached = exact.cumsum() / exact.sum()
    assume(np.abs(reached - top_p).min() > 1e-6)
    needed = int(np.searchsorted(reached, top_p)) + 1
    assert nucleus(scores, top_p, temperature).tolist() == sorted(order[:needed].tolist())


def test_both_ways_to_a_nucleus_were_tried():
    peaked, flat = many_scores(1, 5.0), many_scores(1, 0.3)
    assert nucleus(peaked, 0.5, 0.7).size < FIRST_NUCLEUS < nucleus(flat, 0.5, 0.7).size


@pytest.mark.parametrize("seed", range(20))
def test_a_nucleus_of_everything_keeps_everything(seed):
    assert nucleus(many_scores(seed, 0.3), math.nextafter(1, 0), 1.0).size == MANY


@examples(200)
@given(
    weights=st.lists(st.sampled_from([0.0, 1e-7, 0.1, 0.3, 1.0]), min_size=1, max_size=12).filter(any),
    blocks=st.integers(0, 2),
    noise=st.one_of(st.just(0.0), st.just(math.nextafter(1, 0)), st.floats(0, 1, exclude_max=True)),
)
def test_what_has_no_chance_is_never_drawn(weights, blocks, noise):
    nothing = [0.0] * (blocks * BLOCK_SCORES)
    weights = np.array([*nothing, *weights, *nothing], np.float32)
    assert weights[draw(weights, noise)] > 0


@examples(100)
@given(seed=st.integers(0, 1000), noise=st.floats(0, 1, exclude_max=True))
def test_the_draw_is_where_the_cumulated_weights_pass_the_noise(seed, noise):
    weights = weights_of(many_scores(seed, 4.0), 1.0)
    reached = weights.astype(float).cumsum() / weights.sum(dtype=float)
    place = draw(weights, noise)
    assert (reached[place - 1] if place else 0) - 1e-6 <= noise <= reached[place] + 1e-6


def test_every_token_is_drawn_as_often_as_it_should():
    chances = [0.1, 0.0, 0.4, 0.2, 0.3]
    weights = np.zeros(MANY, np.float32)
    places = np.array([0, 3, BLOCK_SCORES - 1, BLOCK_SCORES, MANY - 1])
    weights[places] = chances
    draws = 4000
    counts = Counter(draw(weights, uniform(11, 0, position)) for position in range(draws))
    for place, chance in zip(places.tolist(), chances, strict=True):
        # Five standard deviations of a binomial count.
        assert abs(counts[place] - draws * chance) <= 5 * math.sqrt(draws * chance * (1 - chance))
