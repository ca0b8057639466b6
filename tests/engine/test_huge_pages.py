"""Memory for weights: pieces of it, pages made ahead of use, and what is given back."""

import sys
import time

import psutil
import pytest

from engine.executors.native.huge_pages import AHEAD_BYTES, LINE_BYTES, PAGE_BYTES, HugePages
from tests.processes import wait_for

#: Bytes that other parts of the process may take or give back meanwhile.
SLACK_BYTES = 16 << 20

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what memory is in use")


def used_bytes():
    return psutil.Process().memory_info().rss


def wait_until_made(memory, size):
    wait_for(lambda: memory.made_bytes == size, 20, "the pages")


@pytest.mark.parametrize("expected_bytes", [0, 3 * PAGE_BYTES, 1 << 30])
def test_pieces_are_zeros_of_their_own_on_whole_lines(expected_bytes):
    memory = HugePages(expected_bytes)
    sizes = [1, 4 * PAGE_BYTES, 100, PAGE_BYTES, LINE_BYTES]
    pieces = [memory.take(size) for size in sizes]
    memory.settle()
    for number, (piece, size) in enumerate(zip(pieces, sizes, strict=True), 1):
        assert piece.shape == (size,)
        assert not piece.any()
        assert piece.ctypes.data % LINE_BYTES == 0
        piece[:] = number
    assert [set(piece.tolist()) for piece in pieces[2:]] == [{3}, {4}, {5}]
    assert pieces[0].tolist() == [1]
    assert (pieces[1] == 2).all()


@only_linux
def test_expected_pages_are_made_before_anybody_takes_them():
    before, size = used_bytes(), 4 * AHEAD_BYTES
    memory = HugePages(size)
    wait_until_made(memory, size)
    assert used_bytes() - before > size - SLACK_BYTES
    memory.settle()
    assert used_bytes() - before < SLACK_BYTES


@only_linux
def test_what_was_taken_outlives_the_settling():
    before, size = used_bytes(), 4 * AHEAD_BYTES
    memory = HugePages(size)
    wait_until_made(memory, size)
    piece = memory.take(AHEAD_BYTES)
    piece[:] = 7
    memory.settle()
    del memory
    assert (piece == 7).all()
    assert abs(used_bytes() - before - AHEAD_BYTES) < SLACK_BYTES


def test_what_is_written_while_pages_are_being_made_stays():
    memory = HugePages(1 << 30)
    pieces = [memory.take(8 * PAGE_BYTES) for _ in range(8)]
    for piece in pieces:
        piece[:] = 7
    time.sleep(0.2)  # in which a maker that went on would come by
    assert all((piece == 7).all() for piece in pieces)
    memory.settle()


@only_linux
def test_settling_at_once_does_not_wait_for_all_of_the_pages():
    memory = HugePages(1 << 34)
    memory.settle()
    assert memory.made_bytes <= 2 * AHEAD_BYTES
