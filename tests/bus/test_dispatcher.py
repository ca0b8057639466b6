"""What the dispatcher tells workers and readers, word by word."""

from bus.assignment import INBOX_EVENTS
from bus.wire import SILENCE_SECONDS
from contract import Beat, Finished, Goodbye, Interrupt, Refused, Reply, Token, Trimmed
from tests.bus.dispatching import codes, given, heard, hello, token


def test_events_reach_the_reader_and_the_ending_frees_the_place(dispatcher, line):
    dispatcher.hear(b"a", hello(capacity=1), 0.0)
    assignment = given(dispatcher)
    for envelope in (token(0, 5, 6), token(2), Reply("t", Finished())):
        dispatcher.hear(b"a", envelope, 1.0)
    assert heard(assignment) == [Token(0, (5, 6), "x"), Token(2, (7,), "x"), Finished()]
    assert assignment.token_ids == {0: [5, 6, 7]}
    assert given(dispatcher, "next").worker == b"a"


def test_what_was_left_out_reaches_the_reader_and_ends_nothing(dispatcher):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    for envelope in (Reply("t", Trimmed(2)), token(0), Reply("t", Finished())):
        dispatcher.hear(b"a", envelope, 1.0)
    assert heard(assignment) == [Trimmed(2), Token(0, (7,), "x"), Finished()]


def test_an_interrupt_is_told_to_every_worker(dispatcher, line):
    dispatcher.hear(b"a", hello("a"), 0.0)
    dispatcher.hear(b"b", hello("b"), 0.0)
    dispatcher.interrupt(Interrupt("c", "t"), 1.0)
    assert line.sent == [(b"a", Interrupt("c", "t")), (b"b", Interrupt("c", "t"))]


def test_an_interrupt_that_finds_a_worker_out_of_reach_moves_its_tasks(dispatcher, line):
    dispatcher.hear(b"a", hello("a"), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"b", hello("b"), 0.0)
    line.unreachable.add(b"a")
    dispatcher.interrupt(Interrupt("c"), 1.0)
    assert assignment.worker == b"b"
    assert heard(assignment) == []


def test_nothing_follows_an_ending(dispatcher):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    for envelope in (Reply("t", Finished()), token(0), Reply("t", Finished())):
        dispatcher.hear(b"a", envelope, 1.0)
    assert heard(assignment) == [Finished()]


def test_tokens_that_come_twice_are_dropped(dispatcher):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    for index in (0, 1, 0, 1, 2):
        dispatcher.hear(b"a", token(index), 1.0)
    assert [event.index for event in heard(assignment)] == [0, 1, 2]


def test_text_without_new_ids_is_delivered(dispatcher):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", token(0), 1.0)
    dispatcher.hear(b"a", Reply("t", Token(1, (), "rest")), 1.0)
    assert [event.text for event in heard(assignment)] == ["x", "rest"]


def test_a_gap_between_tokens_fails_the_task_and_stops_its_worker(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", token(1), 1.0)
    assert codes(assignment) == ["worker_lost"]
    assert line.cancels() == [(b"a", "t")]


def test_a_worker_may_speak_only_about_its_own_tasks(dispatcher):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"b", token(0), 1.0)
    dispatcher.hear(b"b", Refused("t"), 1.0)
    assert heard(assignment) == []
    assert assignment.worker == b"a"


def test_a_refused_task_goes_to_the_next_worker(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", Refused("t"), 0.1)
    assert line.submits() == [b"a", b"b"]
    dispatcher.hear(b"b", token(0), 0.2)
    assert heard(assignment) == [Token(0, (7,), "x")]


def test_when_all_refuse_the_client_hears_when_to_come_again(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", Refused("t"), 0.1)
    dispatcher.hear(b"b", Refused("t"), 0.2)
    (failed,) = heard(assignment)
    assert (failed.code, failed.status, failed.retryable) == ("overloaded", 503, True)
    assert 1 <= failed.retry_after_seconds <= 60
    assert line.submits() == [b"a", b"b"]


def test_a_worker_that_cannot_be_reached_is_lost_and_the_next_is_tried(dispatcher, line):
    for name in ("a", "b"):
        dispatcher.hear(name.encode(), hello(name), 0.0)
    first = given(dispatcher, "first")
    line.unreachable.add(b"a")
    given(dispatcher, "second")
    third = given(dispatcher, "third")
    assert (first.worker, third.worker) == (b"b", b"b")
    assert heard(first) == []
    assert [status.worker for status in dispatcher.statuses] == ["b"]


def test_a_beat_finds_the_worker_that_is_gone(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    line.unreachable.add(b"a")
    dispatcher.beat(1.0)
    assert assignment.worker is None
    assert dispatcher.statuses == ()


def test_a_beat_finds_the_worker_that_is_silent(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.beat(SILENCE_SECONDS)
    assert assignment.worker == b"a"
    dispatcher.beat(SILENCE_SECONDS + 0.1)
    assert assignment.worker is None
    assert line.sent[-1] == (b"a", Beat(2))


def test_a_worker_that_says_goodbye_still_finishes(dispatcher):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.hear(b"a", Goodbye("a"), 0.1)
    assert codes(given(dispatcher, "late")) == ["no_worker"]
    dispatcher.hear(b"a", Reply("t", Finished()), 0.2)
    assert heard(assignment) == [Finished()]


def test_a_task_that_never_arrived_is_sent_again_when_the_worker_does_not_hold_it(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.beat(1.0)
    dispatcher.hear(b"a", hello(heard=1), 1.1)
    assert line.submits() == [b"a", b"a"]
    dispatcher.hear(b"a", Reply("t", Finished()), 1.2)
    assert heard(assignment) == [Finished()]


def test_a_task_that_nobody_waits_for_is_cancelled_at_the_next_hello(dispatcher, line):
    dispatcher.hear(b"a", hello(held=("forgotten",)), 0.0)
    assert line.cancels() == [(b"a", "forgotten")]


def test_an_abandoned_task_is_cancelled_once(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    dispatcher.abandon(assignment, 1.0)
    dispatcher.abandon(assignment, 1.0)
    assert line.cancels() == [(b"a", "t")]
    assert heard(assignment) == []


def test_a_reader_that_is_marked_as_gone_is_found_at_the_next_event(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    assignment.is_abandoned = True
    dispatcher.hear(b"a", token(0), 1.0)
    assert line.cancels() == [(b"a", "t")]


def test_a_reader_that_is_too_slow_is_told_so_and_memory_stays_bounded(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignment = given(dispatcher)
    for index in range(INBOX_EVENTS + 10):
        dispatcher.hear(b"a", token(index), 1.0)
    events = heard(assignment)
    assert len(events) == INBOX_EVENTS + 1
    assert events[-1].code == "took_too_long"
    assert line.cancels() == [(b"a", "t")]


def test_a_task_id_can_be_used_by_one_task_at_a_time(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    first, second = given(dispatcher), given(dispatcher)
    assert codes(second) == ["invalid_request"]
    dispatcher.abandon(second, 0.1)
    dispatcher.hear(b"a", token(0), 0.2)
    assert len(heard(first)) == 1
    assert line.cancels() == []


def test_closing_ends_every_task(dispatcher, line):
    dispatcher.hear(b"a", hello(), 0.0)
    assignments = [given(dispatcher, str(number)) for number in range(3)]
    dispatcher.close(1.0)
    assert [codes(each) for each in assignments] == [["draining"]] * 3
    assert len(line.cancels()) == 3
