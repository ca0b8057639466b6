import json
import threading

import pytest

from contract import (
    DatabaseDown,
    Draining,
    Failed,
    Finished,
    NoWorker,
    Overloaded,
    PromptTooLong,
    ServingError,
    Token,
    TookTooLong,
    WorkerLost,
)
from gateway import Limits, questions
from gateway.dialects.websocket import parse_frame
from gateway.failures import Caller
from gateway.places import Places
from gateway.questions import Questions, may_ask_again
from gateway.streaming import Streams
from tests.gateway.memory_bus import MemoryBus, Worker, wait_for_ever
from tests.processes import wait_for

#: Seconds for anything that should happen at once.
DEADLINE_SECONDS = 10


def failed(error):
    return Failed.from_error(error("so it is"))


@pytest.mark.parametrize("expects_worker", [True, False])
def test_a_question_waits_for_a_place_however_long_that_takes(expects_worker):
    assert may_ask_again(failed(Overloaded), expects_worker=expects_worker)


def test_a_question_waits_for_a_worker_while_one_is_expected():
    assert may_ask_again(failed(NoWorker), expects_worker=True)
    assert not may_ask_again(failed(NoWorker), expects_worker=False)


@pytest.mark.parametrize(
    "error", [PromptTooLong, Draining, TookTooLong, DatabaseDown, WorkerLost, ServingError]
)
def test_any_other_failure_is_the_reply(error):
    assert not may_ask_again(failed(error), expects_worker=True)


class Room:
    """The questions of one client, over a bus in memory; collects the replies."""

    def __init__(self, script, capacity=8, **limits):
        self.bus = MemoryBus(script, [Worker(capacity=capacity)])
        self.streams = Streams(self.bus, Limits(**limits))
        self.replies = []
        self.is_gone = self.is_clogged = False
        self._changed = threading.Condition()
        caller = Caller("GET", "/")
        self.questions = Questions(self.streams, Places(self.bus), caller, self, self.reply)

    def reply(self, frame):
        with self._changed:
            self.replies.append(json.loads(frame))
            self._changed.notify_all()

    def ask(self, *ids):
        for id_ in ids:
            frame = json.dumps({"id": id_, "question": f"question {id_}"})
            self.questions.add(parse_frame(frame, self.streams.limits))

    def await_replies(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.replies) >= count, DEADLINE_SECONDS)
        assert len(self.replies) == count
        return self.replies


@pytest.fixture
def room():
    rooms = []

    def build(*arguments, **options):
        rooms.append(Room(*arguments, **options))
        return rooms[-1]

    yield build
    for one in rooms:
        one.questions.close()


def echo(task):
    yield Token(0, (0,), task.input.messages[0].content)
    yield Finished()


class Refusing:
    """Fails so many times, then echoes."""

    def __init__(self, error, times):
        self._left = [error] * times
        self.task_ids = set()

    def __call__(self, task):
        self.task_ids.add(task.task_id)
        if self._left:
            yield Failed.from_error(self._left.pop()("not now"))
        else:
            yield from echo(task)


@pytest.mark.parametrize(("error", "times"), [(Overloaded, 5), (NoWorker, 3)], ids=lambda value: str(value))
def test_a_question_that_could_not_be_asked_is_asked_again_under_another_id(room, error, times):
    refusing = Refusing(error, times)
    mine = room(refusing, capacity=1)
    mine.ask(7)
    (reply,) = mine.await_replies(1)
    assert (reply["id"], reply["answer"]) == (7, "question 7")
    assert len(refusing.task_ids) == times + 1


def test_more_questions_than_the_gateway_has_streams_wait(room):
    mine = room(echo, capacity=64, streams=2)
    mine.ask(*range(50))
    assert {reply["answer"] for reply in mine.await_replies(50)} == {f"question {id_}" for id_ in range(50)}


def test_questions_wait_up_to_a_bound(room, monkeypatch):
    monkeypatch.setattr(questions, "MOST_WAITING", 5)
    go_on = threading.Event()

    def held(task):
        while not go_on.wait(0.01):
            yield None
        yield from echo(task)

    mine = room(held, capacity=1)
    mine.ask(*range(4))
    assert not mine.questions.is_full
    mine.ask(4, 5, 6)
    assert mine.questions.is_full
    assert not mine.questions.is_idle
    go_on.set()
    mine.await_replies(7)
    assert not mine.questions.is_full


def test_long_questions_wait_up_to_a_bound_too(room, monkeypatch):
    monkeypatch.setattr(questions, "MOST_WAITING_CHARACTERS", 100)
    mine = room(wait_for_ever, capacity=1)
    mine.ask("x" * 50, "y" * 50, "z" * 50)
    assert mine.questions.is_full


def test_a_client_that_does_not_read_is_given_nothing_more(room):
    mine = room(echo)
    mine.is_clogged = True
    mine.ask(1, 2)
    assert mine.bus.tasks == []
    mine.is_clogged = False
    mine.await_replies(2)


def test_an_error_of_our_own_is_told_without_its_details(room):
    def broken(task):
        raise ZeroDivisionError("a detail")
        yield

    mine = room(broken)
    mine.ask(1)
    (reply,) = mine.await_replies(1)
    assert reply == {"id": 1, "error": {"code": "internal_error", "message": "internal error"}}


def test_whoever_leaves_cancels_what_is_under_way_and_what_waits(room):
    mine = room(wait_for_ever, capacity=4)
    mine.ask(*range(10))
    wait_for(lambda: mine.bus.active == 4, DEADLINE_SECONDS, "the questions under way")
    mine.is_gone = True
    mine.questions.close()
    assert mine.bus.active == 0
    assert len(mine.bus.tasks) == 4
    assert mine.replies == []


def test_a_server_that_drains_tells_those_who_wait_at_once(room):
    mine = room(wait_for_ever, capacity=2)
    mine.ask(*range(10))
    wait_for(lambda: mine.bus.active == 2, DEADLINE_SECONDS, "the questions under way")
    mine.streams.drain()
    assert {reply["error"]["code"] for reply in mine.await_replies(8)} == {"draining"}
    assert not mine.questions.is_idle
