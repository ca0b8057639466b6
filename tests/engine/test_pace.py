"""Steps stay short while somebody reads, on whatever speed of device."""

import pytest

from engine.pace import Pace


def test_a_device_that_nobody_knows_is_given_full_steps():
    assert Pace(512).rows == 512


@pytest.mark.parametrize(
    ("rows_per_second", "rows"), [(100_000, 512), (1000, 300), (500, 150), (10, 64), (0.001, 64)]
)
def test_steps_fill_their_time_within_bounds(rows_per_second, rows):
    pace = Pace(512, step_seconds=0.3, least_rows=64)
    pace.note(512, 512 / rows_per_second)
    assert pace.rows == rows


def test_small_steps_tell_nothing():
    pace = Pace(512, least_rows=64)
    pace.note(1, 0.5)
    pace.note(63, 1.0)
    pace.note(100, 0.0)
    assert pace.rows == 512


def test_a_change_of_speed_is_followed():
    pace = Pace(512, step_seconds=0.3)
    pace.note(512, 0.1)
    for _ in range(20):
        pace.note(200, 0.4)
    assert pace.rows == pytest.approx(150, rel=0.02)


def test_few_rows_at_most_are_never_exceeded():
    pace = Pace(8)
    pace.note(8, 100.0)
    assert pace.rows == 8
