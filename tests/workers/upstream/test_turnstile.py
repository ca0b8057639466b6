import pytest

from contract import Overloaded
from workers.upstream.turnstile import Turnstile


def test_callers_go_through_in_the_order_they_came():
    turnstile = Turnstile(5)
    first, second, third = (turnstile.enter() for _ in range(3))
    assert turnstile.wait(first, 0)
    assert not turnstile.wait(second, 0)
    turnstile.leave(second)  # tired of waiting
    assert not turnstile.wait(third, 0)
    turnstile.leave(first)
    assert turnstile.wait(third, 0)


def test_the_line_is_bounded():
    turnstile = Turnstile(2)
    tickets = [turnstile.enter() for _ in range(3)]
    with pytest.raises(Overloaded):
        turnstile.enter()
    turnstile.leave(tickets[1])
    turnstile.enter()
