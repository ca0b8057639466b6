"""Doing work in a thread that ends with it."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Generic, TypeVar

Result = TypeVar("Result")


class OwnThread(Generic[Result]):
    """Work that has begun in a thread of its own."""

    def __init__(self, work: Callable[[], Result], name: str) -> None:
        self._work = work
        self._outcome: Future[Result] = Future()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def result(self) -> Result:
        """Wait for the work and the end of its thread; return what it returned, or raise what it raised."""
        self._thread.join()
        return self._outcome.result()

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._work())
        except BaseException as error:
            self._outcome.set_exception(error)


def in_own_thread(work: Callable[[], Result], name: str) -> Result:
    """Run the work in a new thread, wait for it and return its result, or raise what it raised.

    torch's operators on the CPU share their work among OpenMP threads, and every thread that calls one
    gets a team of its own that lives as long as it does. GNU's OpenMP counts them all: once there are more
    than processors, waiting threads go to sleep between two operators instead of spinning, and a step of
    one row takes a quarter longer. So whoever computes only for a while does it here.
    """
    return OwnThread(work, name).result()
