"""Runs the several tasks of one request beside each other, as many at once as the workers have places."""

import logging
import threading
import time
from collections.abc import Sequence

from msgspec.structs import replace

from contract import Overloaded, ServingError, Task, TookTooLong, new_task_id
from gateway.disconnect import Client
from gateway.places import Places
from gateway.streaming import ClientGone, Streams, TaskFailed
from gateway.turn import Turn

logger = logging.getLogger(__name__)

#: Seconds between two looks at whether anything failed.
LOOK_SECONDS = 1.0

#: Seconds that the other tasks have to let go once one has failed.
LEAVE_SECONDS = 3.0


class Together:
    """All of the tasks, or none: the first that fails ends the others."""

    def __init__(self, streams: Streams, places: Places, client: Client) -> None:
        self._streams = streams
        self._places = places
        self._client = client
        self._deadline = time.monotonic() + streams.limits.task_seconds
        self._changed = threading.Condition()
        self._turns: dict[int, Turn] = {}
        self._failure: Exception | None = None

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answers any more; each task looks at it."""
        return self._failure is not None or self._client.is_gone

    def run(self, tasks: Sequence[Task]) -> list[Turn]:
        """Return a turn for each task, in their order. Raises what went wrong first."""
        threads = [
            threading.Thread(target=self._work, args=(number, task), daemon=True)
            for number, task in enumerate(tasks)
        ]
        for thread in threads:
            thread.start()
        with self._changed:
            while len(self._turns) < len(tasks) and self._failure is None:
                self._changed.wait(LOOK_SECONDS)
        leave_by = time.monotonic() + LEAVE_SECONDS
        for thread in threads:
            thread.join(max(0.0, leave_by - time.monotonic()))
        if self._failure is not None:
            raise self._failure
        return [self._turns[number] for number in range(len(tasks))]

    # What follows runs in a thread for each task.

    def _work(self, number: int, task: Task) -> None:
        try:
            turn = self._turn(task)
        except (ServingError, TaskFailed, ClientGone) as error:
            self._end(error)
        except Exception as error:
            logger.exception("internal error in task %s", task.task_id)
            self._end(error)
        else:
            with self._changed:
                self._turns[number] = turn
                self._changed.notify_all()

    def _turn(self, task: Task) -> Turn:
        while True:
            has_place = self._places.take(lambda: self.is_gone or not self._has_worker())
            try:
                turn = self._asked(replace(task, task_id=new_task_id()))
            except (Overloaded, TaskFailed) as error:
                if has_place:
                    self._places.give_back_unused()
                if not has_place or not _is_overloaded(error):
                    raise
                if time.monotonic() >= self._deadline:
                    raise TookTooLong("every worker was busy for as long as a task may take") from error
            except BaseException:
                if has_place:
                    self._places.give_back()
                raise
            else:
                if has_place:
                    self._places.give_back()
                return turn

    def _asked(self, task: Task) -> Turn:
        if self.is_gone:
            raise ClientGone(task.task_id)
        with self._streams.open(task, self) as stream:
            (turn,), _ = stream.collect()
        return turn

    def _has_worker(self) -> bool:
        return any(not worker.is_leaving for worker in self._streams.bus.workers())

    def _end(self, error: Exception) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()


def _is_overloaded(error: Overloaded | TaskFailed) -> bool:
    return isinstance(error, Overloaded) or error.failed.code == Overloaded.code
