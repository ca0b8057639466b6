"""Who computes what in the next step. Pure: it moves sequences and blocks about, nothing is computed here."""

from collections import deque
from dataclasses import dataclass, replace

from engine.cache import Cache
from engine.path_index import Content
from engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """Compute `sequence.tokens[start:end]` and behind them a guess; their cache slots are reserved."""

    sequence: Sequence
    start: int
    end: int
    guess: tuple[int, ...] = ()

    @property
    def reaches_the_end(self) -> bool:
        """Whether the last known token is computed, so that a new one can be chosen."""
        return self.end == len(self.sequence.tokens)

    def foreseen(self, place: int, said: list[int]) -> int:
        """Return how many of the tokens said from that place of the text on stand in the guess as well."""
        guessed = self.guess[place - self.end :]
        right = 0
        while right < min(len(said), len(guessed)) and said[right] == guessed[right]:
            right += 1
        return right


class Scheduler:
    """Sequences that run, oldest first, and those that wait for room.

    `step_tokens` bounds the tokens of one step, so that a long prompt is computed in chunks and the
    running streams go on beside it; `running_limit` bounds how many run at once. Steps of fewer than
    `cheap_rows` rows are filled up with guesses. With `whole_prompts` a prompt is computed in one step,
    one prompt per step.
    """

    def __init__(
        self,
        cache: Cache,
        step_tokens: int,
        running_limit: int,
        cheap_rows: int = 0,
        *,
        whole_prompts: bool = False,
    ) -> None:
        self.cache = cache
        self.step_tokens = step_tokens
        self.running_limit = running_limit
        self.cheap_rows = cheap_rows
        self.whole_prompts = whole_prompts
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

    def plan(self, readers_tokens: int | None = None) -> list[Work]:
        """Choose the work of the next step: new tokens of all, then chunks of prompts, oldest first.

        The step is bounded by `readers_tokens` instead where it gives somebody their next token.
        """
        self._admit()
        decoding = sum(1 for sequence in self.running if sequence.pending == 1)
        bound = readers_tokens if decoding and readers_tokens is not None else self.step_tokens
        chunk_budget = most_rows = max(bound - decoding, 1)
        works: list[Work] = []
        index = 0
        while index < len(self.running):  # it may shrink at its end, where the youngest are set back
            sequence = self.running[index]
            index += 1
            rows = self._rows(sequence, chunk_budget, is_first=chunk_budget == most_rows)
            if rows and self._reserve(sequence, sequence.computed + rows):
                works.append(Work(sequence, sequence.computed, sequence.computed + rows))
                chunk_budget -= rows if sequence.pending > 1 else 0
        return self._with_guesses(works)

    def complete(self, work: Work) -> None:
        """Record that the work is computed."""
        work.sequence.steps += 1
        self.advance(work.sequence, work.end)

    def advance(self, sequence: Sequence, computed: int) -> None:
        """Note that so many of its tokens are computed, and make full blocks known for their prefix."""
        size = self.cache.block_tokens
        for index in range(sequence.computed // size, computed // size):
            self.cache.publish(sequence.blocks, index, sequence.tokens)
        sequence.computed = computed

    def _admit(self) -> None:
        """Admit waiting sequences in order while they fit, but none whose next block is being computed."""
        if not self.waiting or len(self.running) >= self.running_limit:
            return
        owed = sum(max(self._blocks_for(len(one.tokens) + 1) - len(one.blocks), 0) for one in self.running)
        promised = {self._promise(sequence) for sequence in self.running}
        passed: list[Sequence] = []
        while self.waiting and len(self.running) < self.running_limit:
            sequence = self.waiting[0]
            matched = self.cache.match(sequence.tokens)
            next_content = self.cache.content(matched, len(matched), sequence.tokens)
            if next_content is not None and next_content in promised:
                self.cache.release(matched)
                passed.append(self.waiting.popleft())
                continue
            needed = self._blocks_for(len(sequence.tokens) + 1) - len(matched)
            if not self.cache.fits(matched, needed, owed):
                self.cache.release(matched)
                break
            owed += needed
            self._start(self.waiting.popleft(), matched)
            promised.add(self._promise(sequence))
        self.waiting.extendleft(reversed(passed))

    def _rows(self, sequence: Sequence, chunk_budget: int, *, is_first: bool) -> int:
        """Return how many of a sequence's tokens the step computes; `is_first` says that no other prompt
        has a part in it."""
        if sequence.pending == 1:
            return 1
        if self.whole_prompts and not sequence.computed:
            return sequence.pending if is_first else 0
        return min(sequence.pending, max(chunk_budget, 0))

    def _start(self, sequence: Sequence, matched: list[int]) -> None:
        self.running.append(sequence)  # before its blocks are made ready: if that fails, it is told
        computed = len(matched) * self.cache.block_tokens
        sequence.blocks = self.cache.take(matched)
        sequence.computed = computed
        if not sequence.steps:
            sequence.cached_tokens = min(sequence.computed, sequence.prompt_tokens)

    def _promise(self, sequence: Sequence) -> Content | None:
        """Return the content of the next block that it will make known, if its tokens are there for one."""
        index = sequence.computed // self.cache.block_tokens
        return self.cache.content(sequence.blocks, index, sequence.tokens)

    def _with_guesses(self, works: list[Work]) -> list[Work]:
        """Use what room is left in a small step for guesses of those that are about to choose."""
        room = self.cheap_rows - sum(work.end - work.start for work in works)
        for index, work in enumerate(works):
            if room <= 0:
                break
            if work.reaches_the_end:
                guess = work.sequence.guess(room)
                works[index] = replace(work, guess=guess[: self._free_slots(work.sequence, len(guess))])
                room -= len(works[index].guess)
        return works

    def _free_slots(self, sequence: Sequence, wanted: int) -> int:
        """Give it blocks for so many guessed tokens, as long as nobody is set back for them."""
        tokens = len(sequence.tokens)
        while len(sequence.blocks) < self._blocks_for(tokens + wanted):
            if (block := self.cache.allocate(sequence.blocks)) is None:
                break
            sequence.blocks.append(block)
        return len(sequence.blocks) * self.cache.block_tokens - tokens

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Give it blocks for so many tokens, setting back the youngest if need be; False if it is that."""
        while len(sequence.blocks) < self._blocks_for(tokens):
            block = self.cache.allocate(sequence.blocks)
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
