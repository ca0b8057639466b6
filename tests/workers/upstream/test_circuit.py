import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.upstream.circuit import (
    FAILURES_TO_OPEN,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    PROBE_SECONDS,
    Circuit,
)


def opened(at=0.0):
    circuit = Circuit()
    for _ in range(FAILURES_TO_OPEN):
        assert circuit.admit(at) == 0
        circuit.fail(at)
    return circuit


def test_it_opens_after_failures_in_a_row_only():
    circuit = Circuit()
    for _ in range(3 * FAILURES_TO_OPEN):
        circuit.fail(0.0)
        circuit.succeed()
        circuit.fail(0.0)
        circuit.succeed()
    assert circuit.admit(0.0) == 0
    assert not circuit.is_open
    assert opened().is_open


def test_while_it_is_open_callers_are_told_when_to_come_again():
    circuit = opened(at=100.0)
    assert circuit.admit(100.0) == FIRST_PAUSE_SECONDS
    assert circuit.admit(100.25) == FIRST_PAUSE_SECONDS - 0.25


def test_after_the_pause_one_caller_probes_and_the_others_wait():
    circuit = opened()
    assert circuit.admit(FIRST_PAUSE_SECONDS) == 0
    assert circuit.admit(FIRST_PAUSE_SECONDS) == PROBE_SECONDS
    circuit.succeed()
    assert circuit.admit(FIRST_PAUSE_SECONDS) == 0


def test_a_probe_that_fails_doubles_the_pause_up_to_the_longest():
    circuit, now, pauses = opened(), 0.0, []
    for _ in range(8):
        pauses.append(circuit.admit(now))
        now += pauses[-1]
        assert circuit.admit(now) == 0
        circuit.fail(now)
    assert pauses[:3] == [FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_success_forgets_the_long_pauses():
    circuit = opened()
    circuit.admit(5.0)
    circuit.fail(5.0)
    circuit.admit(50.0)
    circuit.succeed()
    for _ in range(FAILURES_TO_OPEN):
        circuit.fail(60.0)
    assert circuit.admit(60.0) == FIRST_PAUSE_SECONDS


def test_a_probe_whose_caller_leaves_makes_room_for_another():
    circuit = opened()
    assert circuit.admit(2.0) == 0
    circuit.leave()
    assert circuit.admit(2.0) == 0


def test_requests_from_before_it_opened_do_not_prolong_the_pause():
    circuit = opened(at=0.0)
    circuit.fail(FIRST_PAUSE_SECONDS / 2)
    assert circuit.admit(FIRST_PAUSE_SECONDS) == 0


@given(st.lists(st.tuples(st.sampled_from(["succeed", "fail", "leave"]), st.floats(0, 40)), max_size=40))
def test_whatever_happens_somebody_may_try_again_in_time(steps):
    circuit, now = Circuit(), 0.0
    for verdict, seconds in steps:
        now += seconds
        if circuit.admit(now) == 0:
            circuit.fail(now) if verdict == "fail" else getattr(circuit, verdict)()
    assert circuit.admit(now + LONGEST_PAUSE_SECONDS) == 0


@pytest.mark.parametrize("failures", range(FAILURES_TO_OPEN))
def test_fewer_failures_leave_it_closed(failures):
    circuit = Circuit()
    for _ in range(failures):
        circuit.fail(0.0)
    assert circuit.admit(0.0) == 0
