import os

import pytest

from launch.restart_policy import GiveUp, Restart, RestartPolicy

PATIENT = RestartPolicy(patience=100)


def test_pauses_double_up_to_the_longest():
    pauses = [PATIENT.judge(deaths, exit_status=1) for deaths in range(1, 9)]
    assert pauses == [Restart(seconds) for seconds in (0.5, 1, 2, 4, 8, 16, 30, 30)]


def test_a_long_life_forgives_earlier_deaths():
    assert RestartPolicy().count(4, lived_seconds=60.0) == 1
    assert RestartPolicy().count(4, lived_seconds=59.9) == 5


def test_five_quick_deaths_are_enough():
    verdicts = [RestartPolicy().judge(deaths, exit_status=-9) for deaths in range(1, 6)]
    assert [type(verdict) for verdict in verdicts] == [Restart] * 4 + [GiveUp]
    assert "5 times" in verdicts[-1].reason


def test_what_can_never_start_is_given_up_at_once():
    assert isinstance(PATIENT.judge(1, exit_status=os.EX_CONFIG), GiveUp)


@pytest.mark.parametrize("exit_status", [0, 1, -15])
def test_any_other_end_is_a_death(exit_status):
    assert isinstance(PATIENT.judge(1, exit_status), Restart)
