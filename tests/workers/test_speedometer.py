import pytest

from contract import Finished, Speed, Token
from tests.bus.house import chat, eventually
from workers.speedometer import Speedometer


def test_nothing_was_generated_before_the_first_token():
    assert Speedometer().read(now=100.0) == Speed()


def test_first_tokens_and_those_after_them_are_counted_apart():
    meter = Speedometer()
    meter.note_first(waited_seconds=0.5, now=10.0)
    meter.note_later(3)
    meter.note_end(now=12.0)
    meter.note_first(waited_seconds=1.5, now=20.0)
    meter.note_end(now=20.5)
    assert meter.read(now=99.0) == Speed(2, 2.0, 3, 2.5)


def test_the_time_of_answers_beside_each_other_counts_once():
    meter = Speedometer()
    meter.note_first(waited_seconds=0.0, now=10.0)
    meter.note_first(waited_seconds=0.0, now=11.0)
    meter.note_end(now=12.0)
    assert meter.read(now=12.5).later_seconds == 2.5
    meter.note_end(now=13.0)
    assert meter.read(now=99.0).later_seconds == 3.0


def says_five(task):
    yield Token(0, (), "")
    yield Token(0, (1, 2), "a")
    yield Token(2, (3, 4, 5), "b")
    yield Token(5, (), "c")
    yield Finished()


def test_whoever_has_read_an_answer_finds_it_counted(house):
    gateway = house.gateway()
    house.worker(gateway, perform=says_five)
    for number in range(1, 20):
        assert list(gateway.submit(chat()))[-1] == Finished()
        (status,) = gateway.workers()
        assert (status.speed.first_tokens, status.speed.later_tokens) == (number, 4 * number)
        assert status.speed.first_token_seconds > 0
        assert status.speed.later_seconds > 0


def fails_late(task):
    yield Token(0, (1,), "a")
    raise ZeroDivisionError


def fails_at_once(task):
    yield Token(0, (), "")
    raise ZeroDivisionError


@pytest.mark.parametrize(("perform", "first_tokens"), [(fails_late, 1), (fails_at_once, 0)])
def test_what_fails_is_no_longer_under_way(house, perform, first_tokens):
    gateway = house.gateway()
    house.worker(gateway, perform=perform)
    assert list(gateway.submit(chat()))[-1].code == "internal_error"
    eventually(lambda: gateway.workers()[0].active == 0)
    speed = gateway.workers()[0].speed
    assert speed.first_tokens == first_tokens
    assert speed.later_tokens == 0


def test_a_gateway_hears_of_what_was_generated_for_another(house):
    first, second = house.gateway(), house.gateway()
    house.worker(first, second, perform=says_five)
    assert list(first.submit(chat()))[-1] == Finished()
    eventually(lambda: second.workers()[0].speed.later_tokens == 4)
