import threading
import time

import pytest
from msgspec.structs import replace

from bus import wire
from bus.service import BusService
from contract import (
    Beat,
    Cancel,
    Failed,
    Finished,
    FoundRow,
    Hello,
    Interrupt,
    Overloaded,
    Refused,
    Reply,
    RowsAnswer,
    Sampling,
    Speed,
    Submit,
    Token,
    Trimmed,
    Usage,
)
from tests.bus.house import CARD, PATIENCE, Endless, Reader, RunningWorker, chat, echo, eventually
from tests.workers.gateways import started


def raises_at_once(task):
    raise Overloaded("the cache is full", retry_after_seconds=2.0)


def raises_before_the_first_event(task):
    raise Overloaded("the cache is full", retry_after_seconds=2.0)
    yield


def raises_in_the_middle(task):
    yield Token(0, (0,), "a")
    raise ZeroDivisionError("a detail that no client should read")


def exits(task):
    yield Token(0, (0,), "a")
    raise SystemExit(3)


def ends_without_an_ending(task):
    yield Token(0, (0,), "a")


def goes_on_after_its_ending(task):
    yield Finished()
    yield Token(0, (0,), "a")
    yield Failed("internal_error", "", 500, False)


def cannot_be_closed(task):
    try:
        yield Finished()
    finally:
        yield Token(0, (0,), "a")


def says_what_cannot_be_sent(task):
    yield Token(0, (0,), "a")
    yield Finished(answer=RowsAnswer((FoundRow(2**70, {}),), 1))


def says_a_token_that_cannot_be_sent(task):
    yield Token(0, (0,), "\ud800")
    yield Token(1, (0,), "a")
    yield Finished()


@pytest.mark.parametrize("perform", [raises_at_once, raises_before_the_first_event])
def test_a_known_error_is_told_as_it_is(house, perform):
    gateway = house.gateway()
    house.worker(gateway, perform=perform)
    assert list(gateway.submit(chat())) == [Failed("overloaded", "the cache is full", 503, True, 2.0)]


@pytest.mark.parametrize(
    "perform",
    [
        raises_in_the_middle,
        exits,
        ends_without_an_ending,
        cannot_be_closed,
        says_what_cannot_be_sent,
        says_a_token_that_cannot_be_sent,
    ],
)
def test_whatever_goes_wrong_the_task_ends_in_one_failed_and_the_place_is_free_again(house, perform):
    gateway = house.gateway()
    worker = house.worker(gateway, perform=perform, capacity=1)
    for _ in range(3):
        events = list(gateway.submit(chat()))
        assert [type(event) for event in events if not isinstance(event, Token)] == [Failed]
        assert (events[-1].code, events[-1].status) == ("internal_error", 500)
        assert "detail" not in events[-1].message
        # What cannot be sent is told at once; the task's thread lets go of its place a moment later.
        eventually(lambda: not worker.loop._held and gateway.workers()[0].active == 0)


def test_nothing_follows_an_ending(house):
    gateway = house.gateway()
    house.worker(gateway, perform=goes_on_after_its_ending, capacity=1)
    for _ in range(3):
        assert list(gateway.submit(chat())) == [Finished()]


def test_a_place_is_free_as_soon_as_the_ending_is_there(house):
    gateway = house.gateway()
    house.worker(gateway, capacity=1)
    for _ in range(100):
        assert list(gateway.submit(chat()))[-1] == Finished()


def test_empty_tokens_stay_in_the_worker(house):
    def perform(task):
        yield Token(0, (), "")
        yield Token(0, (1,), "")
        yield Token(1, (), "é")
        yield Finished()

    gateway = house.gateway()
    house.worker(gateway, perform=perform)
    assert list(gateway.submit(chat())) == [Token(0, (1,), ""), Token(1, (), "é"), Finished()]


def test_a_cancelled_task_is_closed_in_its_own_thread(house):
    threads = {}

    def perform(task):
        threads["ran"] = threading.get_ident()
        try:
            for index in range(10_000):
                yield Token(index, (0,), "a")
                time.sleep(0.001)
        finally:
            threads["closed"] = threading.get_ident()

    gateway = house.gateway()
    house.worker(gateway, perform=perform)
    stream = gateway.submit(chat())
    next(stream)
    stream.close()
    eventually(lambda: "closed" in threads)
    assert threads["ran"] == threads["closed"]


def test_a_cancelled_task_that_has_nothing_to_tell_yet_is_closed_too(house):
    is_closed = threading.Event()

    def perform(task):
        try:
            while True:
                yield Token(0, (), "")
                time.sleep(0.002)
        finally:
            is_closed.set()

    gateway = house.gateway(patience_seconds=0.1)
    house.worker(gateway, perform=perform)
    assert [event.code for event in gateway.submit(chat())] == ["took_too_long"]
    assert is_closed.wait(5.0)


def test_the_tasks_of_a_gateway_that_is_gone_are_stopped(house):
    gone, other, endless = house.gateway(), house.gateway(), Endless()
    house.worker(gone, other, perform=endless)
    reader = Reader(other, chat())
    lost = [Reader(gone, chat()) for _ in range(3)]
    eventually(lambda: endless.running == 4)
    gone.stop()
    assert [each.ending().code for each in lost] == ["draining"] * 3
    eventually(lambda: endless.closed == 3)
    seen = len(reader.events)
    eventually(lambda: len(reader.events) > seen)


def test_a_gateway_that_is_silent_counts_as_gone(gateway, monkeypatch):
    monkeypatch.setattr("workers.loop.SILENCE_SECONDS", 0.5)
    endless = Endless()
    worker = started(gateway, endless)
    gateway.says(wire.encode(Submit(chat())))
    eventually(lambda: endless.closed == 1)
    worker.stop()


def test_garbage_from_a_gateway_changes_nothing(gateway, caplog):
    worker = started(gateway, echo)
    task = chat()
    for garbage in (
        b"",
        b"garbage",
        b"\x01",
        b"\x01\xdd\xff\xff\xff\xff",
        wire.encode(Hello("w", CARD, (), 1, 0)),
    ):
        gateway.says(garbage)
    gateway.says(wire.encode(Cancel("unknown")))
    gateway.says(wire.encode(Submit(task)))
    eventually(lambda: gateway.hears(lambda each: each == Reply(task.task_id, Finished())))
    assert sum("Dropped a message" in record.getMessage() for record in caplog.records) == 5
    worker.stop()


def test_what_the_reader_has_from_another_worker_is_not_told_again(gateway):
    def perform(task):
        for choice, ids in enumerate(((5, 6, 7), (8, 9))):
            for index, id_ in enumerate(ids):
                yield Token(index, (id_,), f"{id_} ", choice)
            yield Token(len(ids), (), "rest", choice)
        yield Finished()

    worker = started(gateway, perform)
    task = chat(task_id="t", sampling=Sampling(choices=2), said=((5, 6), ()))
    gateway.says(wire.encode(Submit(task)))
    eventually(lambda: gateway.hears(lambda each: each == Reply("t", Finished())))
    tokens = [each.event for each in gateway.heard if isinstance(each, Reply)][:-1]
    assert [(token.choice, token.ids) for token in tokens] == [
        (0, (7,)),
        (0, ()),
        (1, (8,)),
        (1, (9,)),
        (1, ()),
    ]
    speed = [each.speed for each in gateway.heard if isinstance(each, Hello)][-1]
    assert speed.first_tokens + speed.later_tokens == 3
    worker.stop()


def test_a_task_that_is_held_already_is_refused(gateway):
    worker = started(gateway, Endless())
    message = wire.encode(Submit(chat(task_id="same")))
    gateway.says(message)
    gateway.says(message)
    eventually(lambda: gateway.hears(lambda each: each == Refused("same")))
    worker.stop()


def test_the_heartbeat_tells_what_is_held_and_which_beat_was_heard(gateway):
    worker = started(gateway, Endless())
    gateway.says(wire.encode(Submit(chat(task_id="t"))))
    gateway.says(wire.encode(Beat(7)))
    expected = Hello(worker.name, CARD, ("chat",), 2, 1, ("t",), 7)
    eventually(lambda: gateway.hears(lambda each: without_speed(each) == expected))
    worker.stop()


def without_speed(envelope):
    """A Hello as if nothing had been generated; how fast that goes is told in test_speedometer.py."""
    return replace(envelope, speed=Speed()) if isinstance(envelope, Hello) else envelope


def test_stopping_lets_the_held_tasks_finish_and_takes_no_new_ones(house):
    go_on = threading.Event()

    def perform(task):
        yield Token(0, (0,), "a")
        go_on.wait(10.0)
        yield Finished()

    gateway = house.gateway()
    worker = house.worker(gateway, perform=perform)
    reader = Reader(gateway, chat())
    eventually(lambda: reader.events)
    worker.loop.stop(10.0)
    eventually(lambda: gateway.workers()[0].is_leaving)
    assert [event.code for event in gateway.submit(chat())] == ["no_worker"]
    go_on.set()
    assert reader.ending() == Finished()
    eventually(lambda: gateway.workers() == ())


def test_what_does_not_finish_by_the_deadline_is_cut_off(house):
    gateway, endless = house.gateway(), Endless()
    worker = house.worker(gateway, perform=endless)
    readers = [Reader(gateway, chat()) for _ in range(3)]
    eventually(lambda: endless.running == 3)
    worker.stop(0.1)
    assert [(each.ending().code, each.ending().retryable) for each in readers] == [("draining", True)] * 3
    assert endless.closed == 3


def test_a_task_that_does_not_let_go_cannot_stop_the_stop(house):
    let_go = threading.Event()

    def perform(task):
        yield Token(0, (0,), "a")
        let_go.wait(30.0)
        yield Finished()

    gateway = house.gateway()
    worker = house.worker(gateway, perform=perform)
    reader = Reader(gateway, chat())
    eventually(lambda: reader.events)
    began = time.monotonic()
    worker.stop(0.1)
    assert time.monotonic() - began < 3.0
    assert reader.ending().code == "draining"
    let_go.set()


def test_a_worker_without_any_gateway_can_be_stopped(tmp_path_factory):
    endpoint = f"ipc://{tmp_path_factory.mktemp('bus')}/nobody.ipc"
    RunningWorker([endpoint], echo, 1, CARD, ("chat",), None).stop(5.0)


def test_a_worker_started_before_its_gateway_is_known_soon(house, tmp_path_factory):
    endpoint = f"ipc://{tmp_path_factory.mktemp('bus')}/late.ipc"
    worker = RunningWorker([endpoint], echo, 1, CARD, ("chat",), None)
    try:
        gateway = house.gateway(endpoint)
        eventually(gateway.workers, seconds=3.0)
        assert list(gateway.submit(chat()))[-1] == Finished()
    finally:
        worker.stop()


def test_every_start_has_a_name_of_its_own():
    first, second = (BusService(["ipc:///nowhere/at.all"]) for _ in range(2))
    assert first.worker != second.worker
    first.close()
    second.close()


def test_a_thousand_short_tasks_leave_nothing_behind(house):
    gateway = house.gateway()
    house.worker(gateway, capacity=1000)
    for _ in range(10):
        readers = [Reader(gateway, chat()) for _ in range(100)]
        assert {reader.ending() for reader in readers} == {Finished()}
    assert gateway.workers()[0].active == 0


def test_what_was_left_out_is_passed_on_before_the_tokens(house):
    def trimmed(task):
        yield Trimmed(4)
        yield from echo(task)

    gateway = house.gateway()
    house.worker(gateway, perform=trimmed)
    first, *_, last = gateway.submit(chat())
    assert (first, last) == (Trimmed(4), Finished())


def test_an_interrupted_task_that_said_nothing_yet_ends_too(house):
    begun, closed = threading.Event(), threading.Event()

    def waits(task):
        try:
            while True:
                begun.set()
                yield Token(0, (), "")
                time.sleep(0.01)
        finally:
            closed.set()

    gateway = house.gateway()
    house.worker(gateway, perform=waits)
    task = chat(caller="me", sampling=Sampling(choices=2))
    reader = Reader(gateway, task)
    assert begun.wait(PATIENCE)
    gateway.interrupt("me")
    assert reader.ending() == Finished(("stop", "stop"))
    assert closed.wait(PATIENCE)


def test_an_interrupt_that_comes_late_spares_what_was_asked_for_after_it(gateway):
    worker = started(gateway, Endless())
    for number, name in enumerate(("before", "after"), 1):
        gateway.says(wire.encode(Submit(chat(task_id=name, caller="me"), asked_at=2.0 * number)))
    gateway.says(wire.encode(Interrupt("me", asked_at=3.0)))
    eventually(lambda: gateway.hears(lambda each: isinstance(each, Hello) and each.held == ("after",)))
    gateway.says(wire.encode(Beat(1)))
    expected = Hello(worker.name, CARD, ("chat",), 2, 1, ("after",), 1)
    eventually(lambda: gateway.hears(lambda each: without_speed(each) == expected))
    worker.stop()


def test_an_interrupted_answer_counts_what_a_lost_worker_has_said(gateway):
    worker = started(gateway, Endless())
    gateway.says(
        wire.encode(Submit(chat(task_id="t", caller="me", said=(tuple(range(5000)),)), asked_at=1.0))
    )
    gateway.says(wire.encode(Interrupt("me", asked_at=2.0)))
    ending = Finished(("stop",), Usage(completion_tokens=5000))
    eventually(lambda: gateway.hears(lambda each: each == Reply("t", ending)))
    worker.stop()
