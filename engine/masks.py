"""What constraints allow next, worked out while the device computes."""

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from contract import CannotDo, ServingError, StopReason
from engine.sequence import Sequence

#: Threads that work masks out: one takes some 0.1 ms of a processor, without holding Python's lock.
MASK_THREADS = min(4, os.cpu_count() or 1)

#: Seconds until a mask that does not come fails its step; the grammar's own limits are far below.
MASK_SECONDS = 30


class Masks:
    """Prepares the constraints of sequences that are about to choose a token."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MASK_THREADS, thread_name_prefix="masks")
        self._begun: dict[Sequence, Future[None]] = {}

    def begin(self, sequences: Iterable[Sequence]) -> None:
        """Start to prepare them; their constraints must be left alone until `ending` was asked."""
        self._begun = {
            sequence: self._threads.submit(sequence.constraint.prepare)
            for sequence in sequences
            if sequence.constraint is not None
        }

    def ending(self, sequence: Sequence) -> StopReason | ServingError | None:
        """Wait for a sequence's mask, or work it out where none was begun; say how its answer ends if
        there is nothing left to choose.
        """
        if sequence.constraint is None:
            return None
        try:
            if (begun := self._begun.pop(sequence, None)) is not None:
                begun.result(timeout=MASK_SECONDS)
            else:
                sequence.constraint.prepare()
        except ValueError as error:
            return cannot_go_on(error)
        return "stop" if sequence.constraint.is_finished else None

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def cannot_go_on(error: ValueError) -> CannotDo:
    """Return what the reader of an answer gets that its constraint has led astray."""
    return CannotDo(f"the answer cannot be kept in its form: {error}")
