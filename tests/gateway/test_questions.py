import pytest

from contract import (
    DatabaseDown,
    Draining,
    Failed,
    NoWorker,
    Overloaded,
    PromptTooLong,
    ServingError,
    TookTooLong,
    WorkerLost,
)
from gateway.questions import may_ask_again


def failed(error):
    return Failed.from_error(error("so it is"))


@pytest.mark.parametrize("expects_worker", [True, False])
def test_a_question_waits_for_a_place_however_long_that_takes(expects_worker):
    assert may_ask_again(failed(Overloaded), 0, expects_worker=expects_worker)


def test_a_question_waits_for_a_worker_while_one_is_expected():
    assert may_ask_again(failed(NoWorker), 0, expects_worker=True)
    assert not may_ask_again(failed(NoWorker), 0, expects_worker=False)


def test_a_question_whose_worker_was_lost_has_one_more_chance():
    assert may_ask_again(failed(WorkerLost), 1, expects_worker=True)
    assert not may_ask_again(failed(WorkerLost), 2, expects_worker=True)


@pytest.mark.parametrize("error", [PromptTooLong, Draining, TookTooLong, DatabaseDown, ServingError])
def test_any_other_failure_is_the_reply(error):
    assert not may_ask_again(failed(error), 0, expects_worker=True)
