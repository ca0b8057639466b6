"""Tasks whose worker is lost: another one goes on with them, or they end with a word."""

import pytest
from msgspec.structs import replace

from bus.assignment import MOST_LOSSES, Assignment
from bus.dispatcher import TAKE_UP_SECONDS
from bus.wire import SILENCE_SECONDS
from contract import (
    Failed,
    Finished,
    Goodbye,
    Hello,
    Interrupt,
    Reply,
    Sampling,
    Submit,
    Token,
    Trimmed,
    Usage,
)
from tests.bus.dispatching import codes, given, heard, hello, lose, token, told
from tests.bus.house import CARD, chat


def test_an_answer_goes_on_at_another_worker_behind_what_was_said(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name), 0.0)
    assignment = given(dispatcher)
    for envelope in (Reply("t", Trimmed(2)), token(0, 5, 6), token(2, 7)):
        dispatcher.hear(b"a", envelope, 0.5)
    lose(dispatcher, line, b"a")
    assert told(line) == [(), ((5, 6, 7),)]
    for envelope in (
        Reply("t", Trimmed(2)),
        token(0, 5, 6),
        token(2, 7),
        token(3, 8),
        Reply("t", Finished()),
    ):
        dispatcher.hear(b"b", envelope, 1.5)
    first, *tokens, last = heard(assignment)
    assert (first, last) == (Trimmed(2), Finished())
    assert [event.ids for event in tokens] == [(5, 6), (7,), (8,)]


def test_every_choice_goes_on_behind_its_own_tokens(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    task = chat(task_id="t", sampling=Sampling(choices=3))
    dispatcher.accept(Assignment(Submit(task, 4.0)), 0.0)
    for choice, ids in ((0, (5,)), (2, (6, 7))):
        dispatcher.hear(b"a", Reply("t", Token(0, ids, "x", choice)), 0.5)
    dispatcher.hear(b"b", hello("b"), 0.0)
    lose(dispatcher, line, b"a")
    assert told(line)[-1] == ((5,), (), (6, 7))
    assert [envelope.asked_at for envelope in line.submitted()] == [4.0, 4.0]


def test_text_behind_the_last_id_is_not_told_twice(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name), 0.0)
    assignment = given(dispatcher)
    for worker in (b"a", b"b"):
        for envelope in (token(0), Reply("t", Token(1, (), "rest"))):
            dispatcher.hear(worker, envelope, 0.5)
        if worker == b"a":
            lose(dispatcher, line, b"a")
    dispatcher.hear(b"b", Reply("t", Finished()), 1.5)
    assert heard(assignment) == [Token(0, (7,), "x"), Token(1, (), "rest"), Finished()]


def test_an_answer_without_ids_cannot_go_on(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", Reply("t", Token(0, (), "from an upstream")), 0.5)
    lose(dispatcher, line, b"a")
    _, failed = heard(assignment)
    assert failed == Failed("worker_lost", "the worker was lost while it held the task", 503, retryable=True)
    assert line.submits() == [b"a"]


def test_only_the_same_model_goes_on_with_what_another_worker_has_said(dispatcher, line):
    other = Hello("b", replace(CARD, fingerprint="2"), ("chat",), 10, 0)
    dispatcher.hear(b"a", hello(), 0.0)
    begun, waiting = given(dispatcher), given(dispatcher, "waiting")
    dispatcher.hear(b"a", token(0), 0.5)
    dispatcher.hear(b"b", other, 0.5)
    lose(dispatcher, line, b"a")
    assert (begun.worker, waiting.worker) == (None, b"b")
    dispatcher.hear(b"c", hello("c"), 2.0)
    assert begun.worker == b"c"


def test_a_task_waits_for_a_worker_that_starts_again(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    lose(dispatcher, line, b"a")
    dispatcher.beat(30.0)
    dispatcher.hear(b"b", hello("b"), 31.0)
    assert assignment.worker == b"b"
    dispatcher.hear(b"b", Reply("t", Finished()), 32.0)
    assert heard(assignment) == [Finished()]


def test_a_task_waits_for_a_place_at_the_other_worker(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"b", hello("b", capacity=1), 0.0)
    other = given(dispatcher, "other")
    assert other.worker == b"b"
    lose(dispatcher, line, b"a")
    dispatcher.hear(b"b", Reply("other", Finished()), 2.0)
    dispatcher.beat(3.0)
    assert assignment.worker == b"b"


def test_a_task_does_not_wait_for_ever(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    lose(dispatcher, line, b"a")
    dispatcher.beat(1.0 + TAKE_UP_SECONDS - 0.1)
    assert heard(assignment) == []
    dispatcher.beat(1.0 + TAKE_UP_SECONDS)
    assert codes(assignment) == ["worker_lost"]


def test_a_task_that_is_left_while_it_waits_is_forgotten(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    lose(dispatcher, line, b"a")
    dispatcher.abandon(assignment, 2.0)
    dispatcher.hear(b"b", hello("b"), 3.0)
    assert line.submits() == [b"a"]
    assert heard(assignment) == []


def test_a_task_that_is_the_end_of_its_workers_is_given_up(dispatcher, line):
    for number in range(MOST_LOSSES + 2):
        dispatcher.hear(b"%d" % number, hello(str(number)), 0.0)
    assignment = given(dispatcher)
    for _ in range(MOST_LOSSES + 1):
        lose(dispatcher, line, assignment.worker)
    assert codes(assignment) == ["worker_lost"]
    assert len(dispatcher.statuses) == 1


DRAINING = Reply("t", Failed("draining", "the worker is shutting down", 503, retryable=True))


def test_what_a_leaving_worker_could_not_finish_goes_on_at_another(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", token(0), 0.5)
    dispatcher.hear(b"b", hello("b"), 0.5)
    dispatcher.hear(b"a", Goodbye("a"), 1.0)
    dispatcher.hear(b"a", DRAINING, 16.0)
    assert assignment.worker == b"b"
    assert told(line) == [(), ((7,),)]
    for envelope in (token(1), Reply("t", Finished())):
        dispatcher.hear(b"b", envelope, 17.0)
    assert heard(assignment) == [Token(0, (7,), "x"), Token(1, (7,), "x"), Finished()]


def test_a_worker_that_leaves_without_a_goodbye_is_not_asked_again(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", DRAINING, 1.0)
    assert heard(assignment) == [DRAINING.event]
    assert line.submits() == [b"a"]


def test_where_every_worker_leaves_a_task_ends_as_its_worker_said(dispatcher):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"b", hello("b"), 0.5)
    for worker in ("a", "b"):
        dispatcher.hear(worker.encode(), Goodbye(worker), 1.0)
    dispatcher.hear(b"a", DRAINING, 16.0)
    assert heard(assignment) == [DRAINING.event]
    dispatcher.hear(b"c", hello("c"), 17.0)
    assert assignment.worker is None


@pytest.mark.parametrize(
    ("interrupt", "ends"),
    [
        (Interrupt("me", asked_at=9.0), True),
        (Interrupt("me", "t", 9.0), True),
        (Interrupt("me", "another", 9.0), False),
        (Interrupt("somebody else", asked_at=9.0), False),
        (Interrupt("me", asked_at=3.0), False),
    ],
)
def test_a_task_that_waits_for_a_worker_can_be_interrupted(dispatcher, line, interrupt, ends):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = Assignment(Submit(chat(task_id="t", caller="me"), 5.0))
    dispatcher.accept(assignment, 0.0)
    dispatcher.hear(b"a", token(0, 5, 6), 0.5)
    lose(dispatcher, line, b"a")
    dispatcher.interrupt(interrupt, 2.0)
    dispatcher.hear(b"b", hello("b"), 3.0)
    assert line.submits() == ([b"a"] if ends else [b"a", b"b"])
    assert heard(assignment)[1:] == ([Finished(("stop",), Usage(completion_tokens=2))] if ends else [])


def test_a_worker_that_comes_back_is_given_the_task_once_its_earlier_run_is_silent(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", token(0), 0.5)
    dispatcher.beat(0.5 + SILENCE_SECONDS + 1)
    assert assignment.worker is None
    # What the worker said meanwhile comes now, and its earlier run may even end.
    for envelope in (token(1), hello(held=("t",)), token(2), Reply("t", Finished())):
        dispatcher.hear(b"a", envelope, 8.0)
    assert line.submits() == [b"a"]
    assert line.cancels() == [(b"a", "t")]
    dispatcher.hear(b"a", hello(), 9.0)
    assert line.submits() == [b"a", b"a"]
    for envelope in (token(1), token(2), token(3), Reply("t", Finished())):
        dispatcher.hear(b"a", envelope, 10.0)
    *tokens, last = heard(assignment)
    assert [event.index for event in tokens] == [0, 1, 2, 3]
    assert last == Finished()


def test_a_task_that_waits_has_the_next_place_before_a_new_one(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name, capacity=1), 0.0)
    first, second = given(dispatcher, "first"), given(dispatcher, "second")
    lose(dispatcher, line, first.worker)
    left = second.worker
    dispatcher.hear(left, Reply("second", Finished()), 2.0)
    assert first.worker == left
    assert codes(given(dispatcher, "new")) == ["overloaded"]


def test_a_task_that_waits_makes_nobody_else_wait_longer(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name, capacity=3), 0.0)
    tasks = [given(dispatcher, str(number)) for number in range(6)]
    lose(dispatcher, line, tasks[0].worker)
    for tenth in range(10):
        dispatcher.beat(1.0 + tenth / 10)
    (failed,) = heard(given(dispatcher, "new"))
    assert failed.retry_after_seconds < 2  # of the five that one task is thought to take


def test_an_interrupt_that_a_lost_worker_did_not_hear_still_ends_the_task(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name), 0.0)
    assignment = Assignment(Submit(chat(task_id="t", caller="me"), 5.0))
    dispatcher.accept(assignment, 0.0)
    dispatcher.hear(b"a", token(0), 0.5)
    dispatcher.interrupt(Interrupt("me", "t", 9.0), 1.0)
    assert assignment.worker == b"a"
    lose(dispatcher, line, b"a")
    assert heard(assignment) == [Token(0, (7,), "x"), Finished(("stop",), Usage(completion_tokens=1))]
    assert line.submits() == [b"a"]
