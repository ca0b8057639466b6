"""Who computes what: nobody reads another's text, nobody starves, nothing leaks."""

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.cache import BlockCache
from engine.scheduler import Scheduler, Work
from tests.engine.parts import sequence_of
from tests.engine.slots import SlotChecker, check_bookkeeping
from tests.properties import examples

#: Ids that the random texts are made of: few, so that prefixes are often equal.
IDS = st.integers(0, 1)


def scheduler_of(*, blocks=8, block_tokens=4, step_tokens=16, running_limit=4, cheap_rows=0):
    return Scheduler(BlockCache(blocks, block_tokens), step_tokens, running_limit, cheap_rows)


def spans(works):
    return [(work.start, work.end) for work in works]


def complete(scheduler, works):
    for work in works:
        scheduler.complete(work)


def test_a_long_prompt_is_computed_in_chunks_beside_running_answers():
    scheduler = scheduler_of(blocks=32, step_tokens=10)
    answering = sequence_of([1, 2, 3])
    scheduler.add(answering)
    complete(scheduler, scheduler.plan())
    scheduler.add(sequence_of(range(10, 40)))
    seen = []
    for _ in range(5):
        answering.tokens.append(0)
        works = scheduler.plan()
        complete(scheduler, works)
        seen.append(spans(works))
    assert seen == [
        [(3, 4), (0, 9)],
        [(4, 5), (9, 18)],
        [(5, 6), (18, 27)],
        [(6, 7), (27, 30)],
        [(7, 8)],
    ]


def test_the_oldest_prompt_goes_on_even_where_answers_fill_the_step():
    scheduler = scheduler_of(step_tokens=2, running_limit=4)
    answering = [sequence_of([token]) for token in range(3)]
    for sequence in answering:
        scheduler.add(sequence)
    complete(scheduler, scheduler.plan())
    scheduler.add(sequence_of([7] * 5))
    for sequence in answering:
        sequence.tokens.append(0)
    assert spans(scheduler.plan()) == [(1, 2), (1, 2), (1, 2), (0, 1)]


def test_no_more_run_than_the_limit_and_the_others_keep_their_order():
    scheduler = scheduler_of(running_limit=2)
    sequences = [sequence_of([token]) for token in range(4)]
    for sequence in sequences:
        scheduler.add(sequence)
    assert [work.sequence for work in scheduler.plan()] == sequences[:2]
    scheduler.remove(sequences[0])
    assert scheduler.plan()[-1].sequence is sequences[2]
    assert list(scheduler.waiting) == sequences[3:]


def test_the_youngest_is_set_back_and_comes_next():
    scheduler = scheduler_of(blocks=3, block_tokens=2, running_limit=3)
    old, young, waiting = sequence_of([1, 2, 3]), sequence_of([4]), sequence_of([5] * 5)
    for sequence in (old, young, waiting):
        scheduler.add(sequence)
    complete(scheduler, scheduler.plan())
    assert scheduler.running == [old, young]
    old.tokens += [0, 0]
    assert [work.sequence for work in scheduler.plan()] == [old]
    assert list(scheduler.waiting) == [young, waiting]
    assert (young.computed, young.blocks) == (0, [])


def test_found_prefix_tokens_are_counted_once():
    scheduler = scheduler_of()
    scheduler.add(first := sequence_of([1] * 9))
    complete(scheduler, scheduler.plan())
    scheduler.remove(first)
    scheduler.add(second := sequence_of([1] * 12))
    assert spans(scheduler.plan()) == [(8, 12)]
    assert second.cached_tokens == 8


def test_who_begins_alike_waits_for_the_blocks_of_the_first_while_others_go_on():
    scheduler = scheduler_of(blocks=32, step_tokens=6, running_limit=8)
    alike = [sequence_of([*range(10), place]) for place in range(20, 23)]
    other = sequence_of([50] * 2)
    for sequence in [*alike, other]:
        scheduler.add(sequence)
    seen = []
    for _ in range(4):
        works = scheduler.plan()
        complete(scheduler, works)
        seen.append([(work.sequence, work.start, work.end) for work in works])
    first, *rest = alike
    assert seen == [
        [(first, 0, 6)],
        [(first, 6, 11), (other, 0, 1)],
        [(other, 1, 2), (rest[0], 8, 11), (rest[1], 8, 10)],
        [(rest[1], 10, 11)],
    ]
    assert [sequence.cached_tokens for sequence in alike] == [0, 8, 8]


def test_a_cancelled_first_keeps_nobody_waiting():
    scheduler = scheduler_of(step_tokens=4)
    first, second = sequence_of([1] * 9), sequence_of([1] * 9)
    scheduler.add(first)
    scheduler.add(second)
    assert [work.sequence for work in scheduler.plan()] == [first]
    scheduler.remove(first)
    assert [work.sequence for work in scheduler.plan()] == [second]


def test_prompts_that_are_still_read_in_count_with_all_their_blocks():
    scheduler = scheduler_of(blocks=8, step_tokens=4)
    large, next_large = sequence_of([1] * 20), sequence_of([2] * 12)
    scheduler.add(large)
    scheduler.add(next_large)
    for _ in range(5):
        works = scheduler.plan()
        complete(scheduler, works)
        assert [work.sequence for work in works] == [large]
    assert list(scheduler.waiting) == [next_large]


def test_guesses_fill_small_steps_and_take_no_block_from_anybody():
    scheduler = scheduler_of(blocks=4, cheap_rows=6)
    copying = sequence_of([1, 2, 3, 4, 1, 2, 3])
    scheduler.add(copying)
    (work,) = scheduler.plan()  # its seven rows are no small step
    assert work.guess == ()
    scheduler.complete(work)
    copying.tokens += [4, 1, 2]
    (work,) = scheduler.plan()
    assert (work.start, work.end, work.guess) == (7, 10, (3, 4, 1))
    assert len(copying.blocks) == 4
    scheduler.complete(work)
    copying.tokens += [3, 4, 1, 2]
    assert (work.foreseen(10, [3, 4, 9]), work.foreseen(11, [4]), work.foreseen(13, [1])) == (2, 1, 0)
    (work,) = scheduler.plan()
    assert work.guess == (3, 4)
    assert (len(copying.blocks), scheduler.cache.available) == (4, 0)


def test_a_removed_sequence_must_be_known():
    with pytest.raises(ValueError):
        scheduler_of().remove(sequence_of([1]))


class Service(RuleBasedStateMachine):
    """Arrivals, cancels, ends and steps in any order over a cache that is nearly too small."""

    @initialize(
        blocks=st.integers(1, 8),
        size=st.integers(1, 4),
        step=st.integers(1, 12),
        limit=st.integers(1, 5),
        cheap=st.integers(0, 8),
    )
    def begin(self, blocks, size, step, limit, cheap):
        assume(blocks * size > 1)
        self.cache = BlockCache(blocks, size)
        self.scheduler = Scheduler(self.cache, step, limit, cheap)
        self.checker = SlotChecker(self.cache)
        self.most_tokens = blocks * size
        self.live = []

    @rule(data=st.data())
    def arrive(self, data):
        prompt = data.draw(st.lists(IDS, min_size=1, max_size=self.most_tokens - 1))
        limit = data.draw(st.integers(len(prompt) + 1, self.most_tokens))
        sequence = sequence_of(prompt, limit_tokens=limit)
        self.live.append(sequence)
        self.scheduler.add(sequence)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data):
        self._end(data.draw(st.sampled_from(self.live)))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def step(self, data):
        self._step(lambda: data.draw(st.lists(IDS, min_size=1, max_size=4)))

    @precondition(lambda self: self.live)
    @rule()
    def fail_a_step(self):
        """The executor raised: those that run are given up, whatever they had planned."""
        self.scheduler.plan()
        for sequence in list(self.scheduler.running):
            self._end(sequence)

    @invariant()
    def bookkeeping_is_right(self):
        if not hasattr(self, "cache"):
            return
        scheduler = self.scheduler
        assert len(scheduler.running) <= scheduler.running_limit
        assert {*scheduler.running, *scheduler.waiting} == set(self.live)
        assert len(scheduler.running) + len(scheduler.waiting) == len(self.live)
        for sequence in scheduler.waiting:
            assert (sequence.blocks, sequence.computed) == ([], 0)
        check_bookkeeping(self.cache, [sequence.blocks for sequence in scheduler.running])

    def teardown(self):
        """Everybody gets to the end of their answer, and nothing is held afterwards."""
        if not hasattr(self, "cache"):
            return
        steps_left = sum(sequence.limit_tokens for sequence in self.live)
        while self.live:
            assert steps_left, "somebody starves"
            steps_left -= 1
            self._step(lambda: [0])
            self.bookkeeping_is_right()
        assert not self.scheduler.has_work
        assert self.cache.available == self.cache.blocks

    def _step(self, draw_tokens):
        works = self.scheduler.plan()
        self._check_plan(works)
        self.checker.run(works)
        for work in works:
            self.scheduler.complete(work)
        for work in works:
            if work.reaches_the_end:
                self._say(work, draw_tokens)

    def _say(self, work, draw_tokens):
        """Append tokens as long as the guess foresees them."""
        sequence, foresees_all = work.sequence, True
        while foresees_all:
            before = len(sequence.tokens)
            said = draw_tokens()[: sequence.limit_tokens - before]
            sequence.tokens += said
            if len(sequence.tokens) == sequence.limit_tokens:
                self._end(sequence)
                return
            right = work.foreseen(before, said)
            self.scheduler.advance(sequence, before + right)
            foresees_all = right == len(said)

    def _check_plan(self, works: list[Work]):
        scheduler = self.scheduler
        assert works, "there is work, but nobody may do any"
        assert works[0].sequence is scheduler.running[0], "the oldest goes on in every step"
        assert len({id(work.sequence) for work in works}) == len(works)
        for work in works:
            assert work.sequence in scheduler.running
            assert work.start == work.sequence.computed < work.end <= len(work.sequence.tokens)
            assert len(work.sequence.blocks) * self.cache.block_tokens >= work.end + len(work.guess)
            assert len(work.sequence.tokens) + len(work.guess) < work.sequence.limit_tokens or not work.guess
        single = sum(1 for work in works if work.sequence.pending == 1)
        rows = sum(work.end - work.start for work in works)
        assert rows <= max(scheduler.step_tokens, single + 1)
        guessed = sum(len(work.guess) for work in works)
        assert not guessed or rows + guessed <= scheduler.cheap_rows

    def _end(self, sequence):
        self.scheduler.remove(sequence)
        self.live.remove(sequence)


TestService = Service.TestCase
TestService.settings = examples(120, steps=40)
