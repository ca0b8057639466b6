import select
import threading

import pytest

from bus.errors import MailboxClosed, MailboxFull
from bus.mailbox import Mailbox


@pytest.fixture
def mailbox():
    mailbox = Mailbox(bound=3)
    yield mailbox
    mailbox.close()


def is_ringing(mailbox) -> bool:
    return bool(select.select([mailbox], [], [], 0)[0])


def test_what_was_put_comes_out_in_order(mailbox):
    mailbox.put(1, 0.0)
    mailbox.put(2, 0.0)
    assert mailbox.drain() == [1, 2]
    assert mailbox.drain() == []


def test_it_rings_until_it_was_drained(mailbox):
    assert not is_ringing(mailbox)
    mailbox.put(1, 0.0)
    assert is_ringing(mailbox)
    mailbox.drain()
    assert not is_ringing(mailbox)


def test_a_ring_alone_leaves_nothing(mailbox):
    mailbox.ring()
    assert is_ringing(mailbox)
    assert mailbox.drain() == []


def test_a_full_mailbox_makes_wait_and_then_fails(mailbox):
    for number in range(3):
        mailbox.put(number, 0.0)
    with pytest.raises(MailboxFull):
        mailbox.put(3, 0.05)


def test_who_waits_goes_on_when_there_is_room(mailbox):
    for number in range(3):
        mailbox.put(number, 0.0)
    waiting = threading.Thread(target=mailbox.put, args=(3, 10.0))
    waiting.start()
    assert mailbox.drain() == [0, 1, 2]
    waiting.join(10.0)
    assert mailbox.drain() == [3]


def test_a_closed_mailbox_takes_nothing_and_returns_what_lay_in_it(mailbox):
    mailbox.put(1, 0.0)
    assert mailbox.close() == [1]
    assert mailbox.close() == []
    mailbox.ring()
    with pytest.raises(MailboxClosed):
        mailbox.put(2, 0.0)


def test_who_waits_is_told_that_it_closed(mailbox):
    for number in range(3):
        mailbox.put(number, 0.0)
    told = threading.Event()

    def wait() -> None:
        try:
            mailbox.put(3, 10.0)
        except MailboxClosed:
            told.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    mailbox.close()
    waiting.join(10.0)
    assert told.is_set()
