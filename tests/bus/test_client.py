import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
import zmq

from bus.client import BusClient
from contract import Beat, Draining, Failed, Finished, Hello, Reply, Submit, Token
from tests.bus.house import CARD, Endless, Reader, chat, eventually

ROOT = Path(__file__).resolve().parents[2]


def test_a_task_ends_in_one_ending_after_its_tokens(house):
    gateway = house.gateway()
    house.worker(gateway)
    events = list(gateway.submit(chat("hello")))
    assert events == [*(Token(index, (index,), "hello") for index in range(3)), Finished()]


def test_a_worker_is_seen_as_it_introduced_itself(house):
    gateway = house.gateway()
    worker = house.worker(gateway, capacity=7, tasks=("chat", "find"))
    (status,) = gateway.workers()
    assert (status.worker, status.model, status.tasks) == (worker.name, CARD, ("chat", "find"))
    assert (status.capacity, status.active, status.is_leaving) == (7, 0, False)


@pytest.mark.parametrize(
    ("changes", "code"), [({"name": "nosuch"}, "unknown_task"), ({"model": "nosuch"}, "unknown_model")]
)
def test_what_nobody_can_do_fails_at_once(house, changes, code):
    gateway = house.gateway()
    house.worker(gateway)
    (failed,) = gateway.submit(msgspec.structs.replace(chat(), **changes))
    assert (failed.code, failed.status, failed.retryable) == (code, 404, False)


def test_without_a_worker_there_is_no_worker(house):
    (failed,) = house.gateway().submit(chat())
    assert (failed.code, failed.status, failed.retryable) == ("no_worker", 503, True)


def test_two_hundred_tasks_at_once_get_each_their_own_answer(house):
    gateway = house.gateway()
    house.worker(gateway)
    readers = [Reader(gateway, chat(f"text {number}")) for number in range(200)]
    for number, reader in enumerate(readers):
        assert reader.ending() == Finished()
        assert [event.text for event in reader.events[:-1]] == [f"text {number}"] * 3


def test_two_gateways_with_one_worker_never_get_each_others_events(house):
    gateways = [house.gateway(), house.gateway()]
    house.worker(*gateways)
    readers = [
        # The same task ids at both: only the connection tells them apart.
        (name, Reader(gateway, chat(f"{name} {number}", task_id=str(number))))
        for number in range(50)
        for name, gateway in zip("ab", gateways, strict=True)
    ]
    for name, reader in readers:
        assert reader.ending() == Finished()
        assert all(event.text.startswith(name) for event in reader.events[:-1])


def test_two_workers_share_the_work_of_one_gateway(house):
    gateway, left, right = house.gateway(), Endless(), Endless()
    house.worker(gateway, perform=left)
    house.worker(gateway, perform=right)
    streams = [gateway.submit(chat()) for _ in range(10)]
    for stream in streams:
        next(stream)
    assert (left.running, right.running) == (5, 5)
    for stream in streams:
        stream.close()
    eventually(lambda: left.closed == right.closed == 5)


def test_a_task_that_names_a_model_goes_to_that_model(house):
    gateway, named, other = house.gateway(), Endless(), Endless()
    house.worker(gateway, perform=other)
    house.worker(gateway, perform=named, card=msgspec.structs.replace(CARD, name="named"))
    streams = [gateway.submit(chat(model="named")) for _ in range(4)]
    for stream in streams:
        next(stream)
    assert (named.running, other.running) == (4, 0)
    for stream in streams:
        stream.close()


def test_the_reader_who_leaves_stops_the_work(house):
    gateway, endless = house.gateway(), Endless()
    house.worker(gateway, perform=endless, capacity=1)
    stream = gateway.submit(chat())
    next(stream)
    stream.close()
    eventually(lambda: endless.closed == 1, seconds=1.0)
    eventually(lambda: isinstance(next(gateway.submit(chat())), Token))


def test_a_task_that_nobody_began_to_read_is_not_sent(house):
    gateway, endless = house.gateway(), Endless()
    house.worker(gateway, perform=endless)
    gateway.submit(chat()).close()
    gateway.submit(chat())
    assert next(gateway.submit(chat(model="nosuch"))).code == "unknown_model"
    assert (endless.running, endless.closed) == (0, 0)


def test_a_full_worker_answers_with_a_time_to_come_again(house):
    gateways = [house.gateway(), house.gateway()]
    house.worker(*gateways, perform=Endless(), capacity=1)
    stream = gateways[0].submit(chat())
    next(stream)
    for gateway in gateways:  # one knows that the worker is full, the other is refused by it
        (failed,) = gateway.submit(chat())
        assert (failed.code, failed.status, failed.retryable) == ("overloaded", 503, True)
        assert 1 <= failed.retry_after_seconds <= 60
    stream.close()


def start_process(gateway):
    known = len(gateway.workers())
    process = subprocess.Popen([sys.executable, "-m", "tests.bus.endless_worker", gateway.endpoint], cwd=ROOT)
    eventually(lambda: len(gateway.workers()) > known, seconds=30.0)
    return process


def readers_under_way(gateway, count=20):
    """Tasks that have all begun to say something."""
    readers = [Reader(gateway, chat()) for _ in range(count)]
    for reader in readers:
        eventually(lambda reader=reader: reader.events)
    return readers


def indices(reader):
    return [event.index for event in reader.events if isinstance(event, Token)]


def test_a_killed_workers_tasks_go_on_at_another_within_a_moment(house):
    gateway = house.gateway()
    with start_process(gateway) as process:
        readers = readers_under_way(gateway)
        other = house.worker(gateway, perform=Endless(), capacity=20)
        process.kill()
    killed, said = time.monotonic(), [len(reader.events) for reader in readers]
    for reader, before in zip(readers, said, strict=True):
        eventually(lambda reader=reader, before=before: len(reader.events) > before + 1)
    assert time.monotonic() - killed < 2.0
    other.stop()
    for reader in readers:
        assert reader.ending().code == "draining"
        assert indices(reader) == list(range(len(reader.events) - 1))


def test_tasks_of_a_killed_worker_wait_for_the_next_and_new_ones_are_refused(house):
    gateway = house.gateway()
    with start_process(gateway) as process:
        readers = readers_under_way(gateway)
        process.kill()
    eventually(lambda: gateway.workers() == ())
    assert next(gateway.submit(chat())).code == "no_worker"
    house.worker(gateway, capacity=20)  # it says three tokens, less than was said before
    assert [reader.ending() for reader in readers] == [Finished()] * 20
    for reader in readers:
        assert indices(reader) == list(range(len(indices(reader))))


def test_a_worker_told_to_end_drains_and_ends(house):
    gateway = house.gateway()
    with start_process(gateway) as process:
        reader = Reader(gateway, chat())
        eventually(lambda: reader.events)
        process.terminate()
        assert process.wait(10.0) == 0
    assert reader.ending().code == "draining"


def test_a_worker_that_hangs_is_lost_when_it_has_been_silent(house, monkeypatch):
    monkeypatch.setattr("bus.roster.SILENCE_SECONDS", 1.5)
    gateway = house.gateway()
    with start_process(gateway) as process:
        hung = gateway.workers()[0].worker
        reader = Reader(gateway, chat())
        eventually(lambda: reader.events)
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: gateway.workers() == ())
        other = house.worker(gateway, perform=Endless())
        before = len(reader.events)
        eventually(lambda: len(reader.events) > before + 1)
        process.send_signal(signal.SIGCONT)  # it is welcome again, and told that nobody waits for its task
        eventually(lambda: {each.worker: each.active for each in gateway.workers()}.get(hung) == 0)
        process.kill()
    other.stop()
    reader.ending()
    assert indices(reader) == list(range(len(indices(reader))))


def test_a_restarted_gateway_gets_its_workers_back(house):
    first, second = house.gateway(), house.gateway()
    endless = Endless()
    house.worker(first, second, perform=endless)
    reader, other = Reader(first, chat()), Reader(second, chat())
    eventually(lambda: reader.events and other.events)
    first.stop()
    assert reader.ending().code == "draining"
    eventually(lambda: endless.closed == 1)
    first = house.gateway(first.endpoint)
    eventually(lambda: first.workers(), seconds=3.0)
    assert isinstance(next(first.submit(chat())), Token)
    assert not isinstance(other.events[-1], Failed)


def test_stopping_ends_every_task_and_nobody_hangs(house):
    gateway, endless = house.gateway(), Endless()
    house.worker(gateway, perform=endless)
    readers = [Reader(gateway, chat()) for _ in range(10)]
    for reader in readers:
        eventually(lambda reader=reader: reader.events)
    gateway.stop()
    gateway.stop()
    assert [reader.ending(1.0).code for reader in readers] == ["draining"] * 10
    assert [event.code for event in gateway.submit(chat())] == ["draining"]
    assert gateway.workers() == ()
    eventually(lambda: endless.closed == 10)


def test_a_client_that_was_never_started_can_be_stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bus")
    gateway = BusClient(f"ipc://{folder}/0.ipc")
    gateway.stop()
    assert [event.code for event in gateway.submit(chat())] == ["draining"]
    assert not list(folder.iterdir())


def test_a_task_without_any_sign_of_life_is_given_up(house):
    silence = threading.Event()
    is_closed = threading.Event()

    def perform(task):
        try:
            silence.wait(10.0)
            yield Token(0, (0,), "late")
            yield Finished()
        finally:
            is_closed.set()

    gateway = house.gateway(patience_seconds=0.1)
    house.worker(gateway, perform=perform)
    (failed,) = gateway.submit(chat())
    assert (failed.code, failed.status) == ("took_too_long", 504)
    eventually(lambda: gateway.workers()[0].active == 0)
    silence.set()
    assert is_closed.wait(10.0)


def test_the_client_draws_a_seed_for_a_task_that_has_none(house):
    seen = []

    def perform(task):
        seen.append(task.sampling.seed)
        yield Finished()

    gateway = house.gateway()
    house.worker(gateway, perform=perform)
    task = chat()
    for each in (task, task, chat(sampling=msgspec.structs.replace(task.sampling, seed=7))):
        assert list(gateway.submit(each)) == [Finished()]
    assert None not in seen
    assert seen[0] != seen[1]
    assert seen[2] == 7


def test_a_task_that_cannot_be_written_is_the_callers_fault(house):
    gateway = house.gateway()
    house.worker(gateway)
    (failed,) = gateway.submit(chat("\ud800"))
    assert (failed.code, failed.status) == ("invalid_request", 400)
    assert list(gateway.submit(chat()))[-1] == Finished()


def test_garbage_from_strangers_changes_nothing(house, caplog):
    gateway = house.gateway()
    house.worker(gateway)
    context = zmq.Context()
    with context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(gateway.endpoint)
        for frames in ([b"garbage"], [b""], [b"\x01"], [b"a", b"b", b"c"], [b"\x01\xdd\xff\xff\xff\xff"]):
            stranger.send_multipart(frames)
        eventually(lambda: len(caplog.records) >= 5)
    context.term()
    assert list(gateway.submit(chat()))[-1] == Finished()
    assert len(gateway.workers()) == 1
    assert all("Dropped a message" in record.getMessage() for record in caplog.records)


def test_a_worker_that_lost_a_task_is_found_out(house):
    gateway = house.gateway()
    service = house.bare_worker(gateway)
    hello = Hello(service.worker, CARD, ("chat",), 1, 0)
    eventually(lambda: service.send(0, hello) and gateway.workers())
    reader = Reader(gateway, chat(task_id="t"))
    heard = []

    def has_heard(kind) -> bool:
        service.wait(0.01)
        heard.extend(envelope for _, envelope in service.receive())
        return any(isinstance(envelope, kind) for envelope in heard)

    eventually(lambda: has_heard(Submit))
    heard.clear()
    service.send(0, Reply("t", Token(0, (1,), "one")))
    eventually(lambda: has_heard(Beat))
    service.send(0, msgspec.structs.replace(hello, heard=heard[-1].number))
    heard.clear()
    eventually(lambda: has_heard(Submit))
    assert [each.task.said for each in heard if isinstance(each, Submit)] == [((1,),)]
    for event in (Token(0, (1,), "one"), Token(1, (2,), "two"), Finished()):
        service.send(0, Reply("t", event))
    assert reader.ending() == Finished()
    assert indices(reader) == [0, 1]


def test_an_interrupt_ends_the_callers_tasks_through_all_gateways_and_nobody_elses(house):
    first, second = house.gateway(), house.gateway()
    endless = Endless()
    house.worker(first, second, perform=endless)
    mine = [Reader(gateway, chat(caller="me")) for gateway in (first, first, second)]
    others = [Reader(gateway, chat(caller=caller)) for gateway in (first, second) for caller in ("you", None)]
    eventually(lambda: endless.running == 7 and all(reader.events for reader in mine))
    second.interrupt("me")
    for reader in mine:
        assert isinstance(reader.ending(), Finished)
        said = [event for event in reader.events if isinstance(event, Token)]
        assert reader.ending().usage.completion_tokens == len(said)
    eventually(lambda: endless.running == 4)
    assert not any(isinstance(event, Finished | Failed) for reader in others for event in reader.events)
    first.interrupt("you")
    eventually(lambda: endless.running == 2)


def test_an_interrupt_may_name_one_task_of_the_caller(house):
    gateway, endless = house.gateway(), Endless()
    house.worker(gateway, perform=endless)
    readers = {name: Reader(gateway, chat(caller="me", task_id=name)) for name in ("one", "other")}
    eventually(lambda: endless.running == 2)
    gateway.interrupt("you", "one")
    gateway.interrupt("me", "one")
    assert isinstance(readers["one"].ending(), Finished)
    assert endless.running == 1


def test_a_closed_client_cannot_interrupt(house):
    gateway = house.gateway()
    gateway.stop()
    with pytest.raises(Draining):
        gateway.interrupt("me")
