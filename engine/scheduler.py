"""Who computes what in the next step. Pure: it moves sequences and blocks about, nothing is computed here."""

from collections import deque
from dataclasses import dataclass

from engine.cache import BlockCache
from engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """Compute `sequence.tokens[start:end]`; their cache slots are reserved."""

    sequence: Sequence
    start: int
    end: int

    @property
    def reaches_the_end(self) -> bool:
        """Whether the last known token is computed, so that a new one can be chosen."""
        return self.end == len(self.sequence.tokens)


class Scheduler:
    """Sequences that run, oldest first, and those that wait for room.

    `step_tokens` bounds the tokens of one step, so that a long prompt is computed in chunks and the
    running streams go on beside it; `running_limit` bounds how many run at once.
    """

    def __init__(self, cache: BlockCache, step_tokens: int, running_limit: int) -> None:
        self.cache = cache
        self.step_tokens = step_tokens
        self.running_limit = running_limit
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Let it wait for its turn. The caller has made sure that it fits an empty cache."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget it and let go of its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._release(sequence)

    def plan(self) -> list[Work]:
        """Choose the work of the next step: new tokens of all, then chunks of prompts, oldest first."""
        self._admit()
        decoding = sum(1 for sequence in self.running if sequence.pending == 1)
        chunk_budget = max(self.step_tokens - decoding, 1)
        works: list[Work] = []
        index = 0
        while index < len(self.running):  # it may shrink at its end, where the youngest are set back
            sequence = self.running[index]
            index += 1
            rows = 1 if sequence.pending == 1 else min(sequence.pending, chunk_budget)
            if rows and self._reserve(sequence, sequence.computed + rows):
                works.append(Work(sequence, sequence.computed, sequence.computed + rows))
                chunk_budget -= rows if sequence.pending > 1 else 0
        return works

    def complete(self, work: Work) -> None:
        """Record that the work is computed, and make its full blocks known for their prefix."""
        sequence = work.sequence
        size = self.cache.block_tokens
        for index in range(work.start // size, work.end // size):
            self.cache.publish(sequence.blocks, index, sequence.tokens[index * size : (index + 1) * size])
        sequence.computed = work.end
        sequence.steps += 1

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.running_limit:
            sequence = self.waiting[0]
            matched = self.cache.match(sequence.tokens)
            needed = self._blocks_for(len(sequence.tokens) + 1) - len(matched)
            if needed > self.cache.available:
                self.cache.release(matched)
                return
            sequence.blocks = matched
            sequence.computed = len(matched) * self.cache.block_tokens
            if not sequence.steps:
                sequence.cached_tokens = min(sequence.computed, sequence.prompt_tokens)
            self.running.append(self.waiting.popleft())

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Give it blocks for so many tokens, setting back the youngest if need be; False if it is that."""
        while len(sequence.blocks) < self._blocks_for(tokens):
            block = self.cache.allocate()
            if block is not None:
                sequence.blocks.append(block)
                continue
            youngest = self.running[-1]
            self._set_back(youngest)
            if youngest is sequence:
                return False
        return True

    def _set_back(self, sequence: Sequence) -> None:
        """Take its blocks; it waits in front of all others and is computed again later."""
        self.running.remove(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.cache.release(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.cache.block_tokens)
