"""The questions of one connection: they wait, are worked on beside each other, and each gets one reply."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from contract import (
    Draining,
    Failed,
    Finished,
    NoWorker,
    Overloaded,
    ServingError,
    Token,
    new_task_id,
)
from gateway.dialects.websocket import Question, render_answer, render_failed
from gateway.disconnect import Client
from gateway.failures import Caller, log_client_gone, log_failure
from gateway.places import Places
from gateway.streaming import ClientGone, Stream, Streams, TaskFailed

logger = logging.getLogger(__name__)

#: Questions of one connection that may wait, and their characters; then it is not read any further.
MOST_WAITING = 16_384
MOST_WAITING_CHARACTERS = 8 * 1024 * 1024

#: Seconds between two looks at whether the client reads again, or is gone.
LOOK_SECONDS = 0.25

#: Seconds that questions of a client that left have to let go of their tasks.
LEAVE_SECONDS = 3.0


class Listener(Client, Protocol):
    """A client that may be slow to read."""

    @property
    def is_clogged(self) -> bool: ...


class Questions:
    """`reply` is called, from many threads, with one frame for each question that was added."""

    def __init__(
        self, streams: Streams, places: Places, caller: Caller, client: Listener, reply: Callable[[str], None]
    ) -> None:
        self._streams = streams
        self._places = places
        self._caller = caller
        self._client = client
        self._reply = reply
        self._changed = threading.Condition()
        self._waiting: deque[Question] = deque()
        self._waiting_characters = 0
        self._asking: set[threading.Thread] = set()
        self._is_over = False
        self._giver = threading.Thread(target=self._give, name="questions", daemon=True)
        self._giver.start()

    @property
    def is_full(self) -> bool:
        """Whether so many wait that no more should be added."""
        return len(self._waiting) >= MOST_WAITING or self._waiting_characters >= MOST_WAITING_CHARACTERS

    @property
    def is_idle(self) -> bool:
        """Whether every question has its reply."""
        return not self._waiting and not self._asking

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for replies any more."""
        return self._is_over or self._client.is_gone

    def add(self, question: Question) -> None:
        with self._changed:
            self._waiting.append(question)
            self._waiting_characters += question.characters
            self._changed.notify_all()

    def close(self) -> None:
        """Cancel whatever has no reply yet, and wait until it has let go."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        if left := len(self._waiting):
            logger.info("failed: %s %s client left with %d questions waiting", *self._caller, left)
        deadline = time.monotonic() + LEAVE_SECONDS
        for thread in (self._giver, *self._asking):
            thread.join(max(0.0, deadline - time.monotonic()))

    # What follows runs in threads of its own: one gives the questions out, each has one while it is asked.

    def _give(self) -> None:
        while self._wait_for_question():
            has_place = self._places.take(lambda: self.is_gone or self._streams.is_draining)
            work = self._ask if has_place else self._turn_away
            with self._changed:
                question = self._waiting.popleft()
                self._waiting_characters -= question.characters
                thread = threading.Thread(target=work, args=(question,), daemon=True)
                self._asking.add(thread)
            thread.start()

    def _wait_for_question(self) -> bool:
        """Wait for one that may be asked: not before the client has read most of its replies."""
        with self._changed:
            while not self.is_gone and (self._client.is_clogged or not self._waiting):
                self._changed.wait(LOOK_SECONDS)
            return not self.is_gone

    def _ask(self, question: Question) -> None:
        """Reply, or put the question back; the place is free before a slow client has read."""
        outcome = self._outcome(question)
        is_put_back = isinstance(outcome, Failed) and self._is_put_back(outcome)
        if is_put_back:
            self._places.give_back_unused()
        else:
            self._places.give_back()
            if isinstance(outcome, Failed):
                outcome = render_failed(question.id, outcome)
            if outcome is not None:
                self._reply(outcome)
        self._end_asking(question, is_put_back=is_put_back)

    def _turn_away(self, question: Question) -> None:
        """The client or the server is about to go."""
        if not self.is_gone:
            failed = Failed.from_error(Draining("the server is shutting down"))
            log_failure(self._caller, failed)
            self._reply(render_failed(question.id, failed))
        self._end_asking(question, is_put_back=False)

    def _end_asking(self, question: Question, *, is_put_back: bool) -> None:
        with self._changed:
            if is_put_back:
                self._waiting.appendleft(question)
                self._waiting_characters += question.characters
            self._asking.discard(threading.current_thread())
            self._changed.notify_all()

    def _outcome(self, question: Question) -> str | Failed | None:
        """Return the frame that answers, or what went wrong; None if nobody is there to be told."""
        task = replace(question.task, task_id=new_task_id())
        try:
            with self._streams.open(task, self) as stream:
                tokens, ending = _collected(stream)
            if isinstance(ending, Finished):
                return render_answer(question, tokens, ending)
            return ending
        except TaskFailed as error:
            return error.failed
        except ServingError as error:
            return Failed.from_error(error)
        except ClientGone:
            log_client_gone(self._caller, task.task_id)
            return None
        except Exception as error:
            logger.exception("internal error in task %s", task.task_id)
            return Failed.from_error(error)

    def _is_put_back(self, failed: Failed) -> bool:
        """Whether it is worth while to ask again; if not, the failure gets its line in the log."""
        if may_ask_again(failed, expects_worker=self._places.expects_worker):
            return True
        log_failure(self._caller, failed)
        return False


def may_ask_again(failed: Failed, *, expects_worker: bool) -> bool:
    """Whether a question that failed so may have an answer soon: nothing of one was sent yet."""
    match failed.code:
        case Overloaded.code:
            return True
        case NoWorker.code:
            return expects_worker
        case _:
            return False


def _collected(stream: Stream) -> tuple[list[Token], Finished | Failed]:
    tokens: list[Token] = []
    for event in stream.events():
        match event:
            case Token():
                tokens.append(event)
            case Finished() | Failed():
                return tokens, event
    raise AssertionError("a stream ended without an ending")
