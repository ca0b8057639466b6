import threading

import pytest

from gateway import places
from gateway.places import Places
from tests.gateway.memory_bus import MemoryBus, Worker

#: Seconds for anything that should happen at once.
DEADLINE_SECONDS = 10


def never():
    return False


def soon():
    """Return what gives up at the second look."""
    looks = iter((False,))
    return lambda: next(looks, True)


def test_one_place_in_eight_stays_free():
    shared = Places(MemoryBus(workers=[Worker(capacity=8), Worker(capacity=8), Worker(is_leaving=True)]))
    assert [shared.take(soon()) for _ in range(15)] == [True] * 14 + [False]


@pytest.mark.parametrize("capacity", [1, 7])
def test_a_small_worker_gives_all_its_places(capacity):
    shared = Places(MemoryBus(workers=[Worker(capacity=capacity)]))
    assert [shared.take(soon()) for _ in range(capacity + 1)] == [True] * capacity + [False]


class Taker:
    """Takes a place in a thread, when it comes."""

    def __init__(self, shared, came, name):
        self.line = shared._line
        stood = len(self.line)
        self.thread = threading.Thread(target=lambda: shared.take(never) and came.append(name))
        self.thread.start()
        with shared._changed:
            assert shared._changed.wait_for(lambda: len(self.line) > stood or came, DEADLINE_SECONDS)


def test_places_are_taken_in_turn():
    shared, came = Places(MemoryBus(workers=[Worker(capacity=1)])), []
    assert shared.take(never)
    takers = [Taker(shared, came, number) for number in range(5)]
    for taker in takers:
        shared.give_back()
        taker.thread.join(DEADLINE_SECONDS)
    assert came == [0, 1, 2, 3, 4]


def test_whoever_is_gone_takes_nothing():
    shared = Places(MemoryBus())
    assert not shared.take(lambda: True)


def test_whoever_gives_up_leaves_the_line():
    shared, came = Places(MemoryBus(workers=[Worker(capacity=1)])), []
    assert shared.take(never)
    assert not shared.take(soon())
    taker = Taker(shared, came, "next")
    shared.give_back()
    taker.thread.join(DEADLINE_SECONDS)
    assert came == ["next"]


def test_after_a_refusal_nobody_tries_until_a_place_is_given_back():
    shared = Places(MemoryBus(workers=[Worker(capacity=8)]))
    assert shared.take(never)
    assert shared.take(never)
    shared.give_back_unused()
    assert not shared.take(soon())
    shared.give_back()
    assert shared.take(soon())


def test_after_a_refusal_somebody_tries_again_soon():
    shared = Places(MemoryBus(workers=[Worker(capacity=8)]))
    assert shared.take(never)
    shared.give_back_unused()
    assert shared.take(never)


def test_questions_wait_for_a_worker_for_a_while_only(monkeypatch):
    bus = MemoryBus(workers=[])
    shared = Places(bus)
    assert shared.expects_worker
    assert not shared.take(soon())
    monkeypatch.setattr(places, "NO_WORKER_SECONDS", 0.0)
    assert not shared.expects_worker
    assert shared.take(soon())
