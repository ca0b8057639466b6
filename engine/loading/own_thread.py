"""Doing work in a thread that ends with it."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def in_own_thread(work: Callable[[], Result], name: str) -> Result:
    """Run the work in a new thread, wait for it and return its result, or raise what it raised.

    torch's operators on the CPU share their work among OpenMP threads, and every thread that calls one
    gets a team of its own that lives as long as it does. GNU's OpenMP counts them all: once there are more
    than processors, waiting threads go to sleep between two operators instead of spinning, and a step of
    one row takes a quarter longer. So whoever computes only for a while does it here.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()
    return outcome.result()
