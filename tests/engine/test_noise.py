"""Noise is a function, and spread evenly."""

from collections import Counter

import pytest

from engine.noise import uniform

#: uniform(42, 0, 7).
KNOWN_NOISE = 0.4074136540795371


def test_noise_is_a_function_of_seed_choice_and_position_only():
    places = [
        (seed, choice, position) for seed in (0, 1, 2**63 - 1) for choice in (0, 1) for position in (0, 1, 99)
    ]
    first = [uniform(*place) for place in places]
    assert first == [uniform(*place) for place in reversed(places)][::-1]
    assert len(set(first)) == len(places)
    assert all(0 <= number < 1 for number in first)
    # Pinned: an answer must go on in the same way under the next version of a library.
    assert uniform(42, 0, 7) == KNOWN_NOISE


def test_noise_is_spread_evenly_over_positions_and_seeds():
    for numbers in (
        [uniform(5, 0, position) for position in range(2000)],
        [uniform(seed, 0, 3) for seed in range(2000)],
    ):
        assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.03)
        tenths = Counter(int(number * 10) for number in numbers)
        assert all(140 <= tenths[tenth] <= 260 for tenth in range(10))
