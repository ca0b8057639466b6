"""Lanes: whose they are, what is copied between them, and when their memory is given back."""

import pytest

from engine.lanes import LaneCache
from engine.scheduler import Scheduler
from tests.engine.parts import sequence_of


class Memory:
    """Writes down what it is told."""

    def __init__(self):
        self.copies = []
        self.freed = []

    def copy(self, source, target, tokens):
        self.copies.append((source, target, tokens))

    def free(self, lane):
        self.freed.append(lane)


def lanes_of(count=3, *, tokens=12, **options):
    memory = Memory()
    return LaneCache(memory, count, tokens, block_tokens=4, **{"most_kept": 2, **options}), memory


def begin(cache, tokens):
    """Match, take, and fill a lane with a text, as a scheduler does; return its blocks."""
    blocks = cache.take(cache.match(tokens))
    while len(blocks) < -(-len(tokens) // 4):
        blocks.append(cache.allocate(blocks))
    for index in range(len(tokens) // 4):
        cache.publish(blocks, index, tokens)
    return blocks


def test_a_sequence_gets_neighbouring_blocks_of_one_lane():
    cache, memory = lanes_of()
    first, second = begin(cache, list(range(10))), begin(cache, list(range(50, 60)))
    assert first == [0, 1, 2]
    assert second == [3, 4, 5]
    assert memory.copies == []


def test_a_lane_ends_where_its_rows_end():
    cache, _ = lanes_of(tokens=12)
    blocks = begin(cache, list(range(12)))
    assert cache.allocate(blocks) is None


def test_a_prefix_in_somebody_elses_lane_is_copied():
    cache, memory = lanes_of()
    text = list(range(9))
    begin(cache, text)
    blocks = begin(cache, [*text[:8], 77, 78])
    assert memory.copies == [(0, 1, 8)]
    assert blocks == [3, 4, 5]


def test_the_last_token_is_left_to_compute():
    cache, _ = lanes_of()
    begin(cache, list(range(8)))
    assert cache.match(list(range(8))) == [0]


def test_a_prefix_that_leaves_too_much_is_of_no_use():
    cache, _ = lanes_of(most_rest=3)
    begin(cache, list(range(9)))
    assert cache.match([*range(8), 1, 2, 3]) == [0, 1]
    assert cache.match([*range(8), 1, 2, 3, 4]) == []


def test_a_lane_whose_sequence_left_is_kept_and_found():
    cache, memory = lanes_of()
    cache.release(begin(cache, list(range(9))))
    assert memory.freed == []
    begin(cache, [*range(8), 50])
    assert memory.copies == [(0, 0, 8)]


def test_a_kept_lane_is_copied_rather_than_cut_short():
    cache, memory = lanes_of()
    cache.release(begin(cache, list(range(12))))
    begin(cache, [*range(4), 50, 51])
    assert memory.copies == [(0, 1, 4)]
    assert cache.match(list(range(12))) == [0, 1]


def test_a_kept_lane_is_cut_short_where_there_is_no_other():
    cache, memory = lanes_of(1)
    cache.release(begin(cache, list(range(12))))
    begin(cache, [*range(4), 50, 51])
    assert memory.copies == [(0, 0, 4)]
    assert cache.match(list(range(12))) == [0]


def test_the_longest_kept_lane_gives_way_and_what_it_held_is_forgotten():
    cache, _ = lanes_of(2)
    cache.release(begin(cache, list(range(9))))
    cache.release(begin(cache, list(range(20, 29))))
    begin(cache, list(range(40, 49)))
    assert cache.match(list(range(9))) == []
    assert len(cache.match(list(range(20, 29)))) == 2


def test_memory_is_given_back_when_more_than_a_few_are_kept():
    cache, memory = lanes_of(4, most_kept=1)
    held = [begin(cache, list(range(start, start + 9))) for start in (0, 20, 40)]
    for blocks in held:
        cache.release(blocks)
    assert memory.freed == [0, 1]
    assert cache.available == 4 * 3


def test_a_lane_without_known_content_is_given_back_at_once():
    cache, memory = lanes_of()
    cache.release(begin(cache, [1, 2]))
    assert memory.freed == [0]


def test_a_prefix_lives_on_in_the_lane_that_it_was_copied_to():
    cache, memory = lanes_of(2)
    text = list(range(9))
    first = begin(cache, text)
    second = begin(cache, [*text[:8], 50])
    cache.release(first)
    third = begin(cache, list(range(60, 69)))
    assert third[0] == first[0]
    assert cache.match([*text[:8], 51]) == [second[0], second[1]]
    assert memory.copies == [(0, 1, 8)]


def test_a_lane_cannot_be_released_twice():
    cache, _ = lanes_of()
    blocks = begin(cache, [1, 2, 3, 4, 5])
    cache.release(blocks)
    with pytest.raises(AssertionError):
        cache.release(blocks)


def test_as_many_sequences_run_as_there_are_lanes_and_the_next_waits():
    cache, _ = lanes_of(2)
    scheduler = Scheduler(cache, step_tokens=64, running_limit=8)
    sequences = [sequence_of([number] * 5) for number in range(3)]
    for sequence in sequences:
        scheduler.add(sequence)
    assert [work.sequence for work in scheduler.plan()] == sequences[:2]
    for sequence in sequences[:2]:
        scheduler.remove(sequence)
    assert [work.sequence for work in scheduler.plan()] == sequences[2:]


def test_whole_prompts_are_computed_one_in_a_step_beside_single_tokens():
    cache, _ = lanes_of(3)
    scheduler = Scheduler(cache, step_tokens=4, running_limit=8, whole_prompts=True)
    first, second, third = (sequence_of([number] * 9) for number in range(3))
    for sequence in (first, second, third):
        scheduler.add(sequence)
    (work,) = scheduler.plan()
    assert (work.sequence, work.start, work.end) == (first, 0, 9)
    scheduler.complete(work)
    first.tokens.append(1)
    works = scheduler.plan()
    assert [(work.sequence, work.end - work.start) for work in works] == [(first, 1), (second, 9)]


def test_who_begins_like_a_prompt_that_is_computed_waits_and_copies():
    cache, memory = lanes_of(3)
    scheduler = Scheduler(cache, step_tokens=64, running_limit=8)
    first, second = sequence_of(range(9)), sequence_of(range(9))
    scheduler.add(first)
    scheduler.add(second)
    (work,) = scheduler.plan()
    scheduler.complete(work)
    first.tokens.append(1)
    works = scheduler.plan()
    assert [work.sequence for work in works] == [first, second]
    assert (works[1].start, works[1].end) == (8, 9)
    assert memory.copies == [(0, 1, 8)]
    assert second.cached_tokens == 8
