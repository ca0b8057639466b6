"""The engine: sequences join and leave the running batch at every step."""

import logging
import secrets
import time
from collections.abc import Generator
from functools import lru_cache
from queue import Empty, Full, Queue
from threading import Event as Flag
from threading import Thread

from contract import (
    MAX_SEED,
    AnswerForm,
    CannotDo,
    Completion,
    Draining,
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    Sampling,
    ServingError,
    StopReason,
    Token,
)
from engine.batch import Executor, build_batch
from engine.cache import BlockCache
from engine.detokenizer import Detokenizer
from engine.masks import Masks, cannot_go_on
from engine.sampler import choose
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from grammar import CompiledGrammar, Vocabulary, compile_grammar

logger = logging.getLogger(__name__)

#: Tokens of one step: long prompts are computed in chunks of at most this many, so that running
#: streams are never held up for longer than one such chunk takes.
STEP_TOKENS = 512

#: Seconds between two empty tokens while a reader waits: how soon a waiting task notices its cancel.
WAIT_SECONDS = 0.1

#: Seconds the engine's thread sleeps at most when it has nothing to do.
IDLE_SECONDS = 1.0


#: Compiled forms kept for the next answer in the same form.
GRAMMARS_KEPT = 16


class Engine:
    """Owns an executor and the thread that drives it; everything else talks to it through `generate`.

    `end_ids` are the tokens that end an answer; at most `capacity` sequences run at once, each with
    at most `context_tokens` tokens, prompt and answer together.
    """

    def __init__(
        self,
        executor: Executor,
        vocabulary: Vocabulary,
        end_ids: frozenset[int],
        *,
        capacity: int,
        context_tokens: int,
        step_tokens: int = STEP_TOKENS,
    ) -> None:
        self._executor = executor
        self._vocabulary = vocabulary
        self._end_ids = end_ids
        self.context_tokens = min(context_tokens, executor.cache_blocks * executor.block_tokens)
        cache = BlockCache(executor.cache_blocks, executor.block_tokens)
        self._scheduler = Scheduler(cache, step_tokens, running_limit=capacity)
        self._masks = Masks()
        self._arrivals: Queue[Sequence] = Queue(maxsize=4 * capacity)
        self._grammar = lru_cache(maxsize=GRAMMARS_KEPT)(self._compile)
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread that computes."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present step; whoever still reads gets Draining."""
        self._stopping.set()
        self._thread.join()
        self._masks.close()

    def generate(
        self, prompt: list[int], sampling: Sampling, form: AnswerForm | None = None
    ) -> Generator[Token, None, Completion]:
        """Yield the answer's tokens, empty ones while nothing comes; return how it ended.

        Closing the generator takes the sequence out of the batch before the next step. Raises
        PromptTooLong if prompt and one token do not fit the context, Overloaded if too many wait,
        CannotDo if the form is wrong or not supported, and whatever befell the batch.
        """
        sequence = self._sequence(prompt, sampling, form)
        try:
            if len(self._scheduler.waiting) >= self._arrivals.maxsize:
                raise Full
            self._arrivals.put_nowait(sequence)
        except Full:
            raise Overloaded("too many tasks wait for this model", retry_after_seconds=1) from None
        try:
            return (yield from self._read(sequence))
        finally:
            sequence.is_cancelled = True

    def step(self) -> None:
        """Compute what every running sequence has waiting, and choose a token for those that are due."""
        works = self._scheduler.plan()
        due = [work.sequence for work in works if work.reaches_the_end]
        self._masks.begin(due)
        logits = self._executor.run(build_batch(works, self._executor.block_tokens))
        logits = logits[:, : len(self._vocabulary)]  # behind it lies padding, which stands for no token
        for work in works:
            self._scheduler.complete(work)
        choosing = {row: sequence for row, sequence in enumerate(due) if self._goes_on(sequence)}
        tokens = choose((logits[row] for row in choosing), list(choosing.values()))
        for sequence, token in zip(choosing.values(), tokens, strict=True):
            self._advance(sequence, token)

    def _sequence(self, prompt: list[int], sampling: Sampling, form: AnswerForm | None) -> Sequence:
        if not prompt:
            raise InvalidRequest("the prompt is empty")
        if len(prompt) >= self.context_tokens:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; with room for an answer, "
                f"at most {self.context_tokens - 1} fit the context"
            )
        limit = self.context_tokens
        if sampling.max_tokens is not None:
            limit = min(limit, len(prompt) + sampling.max_tokens)
        return Sequence(
            tokens=list(prompt),
            prompt_tokens=len(prompt),
            sampling=sampling,
            seed=secrets.randbelow(MAX_SEED) if sampling.seed is None else sampling.seed,
            limit_tokens=limit,
            end_ids=self._end_ids,
            detokenizer=Detokenizer(self._vocabulary, sampling.stop, is_exact=form is not None),
            constraint=None if form is None else self._grammar(form).start(),
        )

    def _compile(self, form: AnswerForm) -> CompiledGrammar:
        try:
            return compile_grammar(form, self._vocabulary)
        except ValueError as error:
            raise CannotDo(f"this model cannot answer in that form: {error}") from error

    def _read(self, sequence: Sequence) -> Generator[Token, None, Completion]:
        next_index = 0
        while True:
            try:
                outcome = sequence.outbox.get(timeout=WAIT_SECONDS)
            except Empty:
                if not self._thread.is_alive():
                    raise Draining("the model is shutting down") from None
                yield Token(next_index, (), "")
                continue
            if isinstance(outcome, Completion):
                return outcome
            if isinstance(outcome, ServingError):
                raise outcome
            next_index = outcome.index + len(outcome.ids)
            yield outcome

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._take_arrivals()
            self._drop_cancelled()
            if self._scheduler.has_work:
                self._step_safely()

    def _step_safely(self) -> None:
        """A step that fails ends the answers that took part in it, not the engine."""
        try:
            self.step()
        except Exception:
            logger.exception("A step failed")
            for sequence in list(self._scheduler.running):
                self._scheduler.remove(sequence)
                sequence.outbox.put(ServingError("the model failed on this batch"))

    def _take_arrivals(self) -> None:
        """Let new sequences in; sleep until one comes if there is nothing else to do."""
        deadline = time.monotonic() + (0 if self._scheduler.has_work else IDLE_SECONDS)
        while True:
            try:
                sequence = self._arrivals.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return
            self._let_in(sequence)
            deadline = 0.0

    def _let_in(self, sequence: Sequence) -> None:
        try:
            reason = sequence.begin()
        except ValueError as error:
            sequence.outbox.put(cannot_go_on(error))
            return
        if reason is None:
            self._scheduler.add(sequence)
        else:
            sequence.finish(reason)

    def _drop_cancelled(self) -> None:
        scheduler = self._scheduler
        for sequence in [*scheduler.running, *scheduler.waiting]:
            if sequence.is_cancelled:
                scheduler.remove(sequence)

    def _goes_on(self, sequence: Sequence) -> bool:
        """Whether there is something to choose; if not, the answer ends here."""
        return not self._end(sequence, self._masks.ending(sequence))

    def _advance(self, sequence: Sequence, token: int) -> None:
        try:
            self._end(sequence, sequence.accept(token))
        except ValueError as error:
            self._end(sequence, cannot_go_on(error))

    def _end(self, sequence: Sequence, ending: StopReason | ServingError | None) -> bool:
        """Take it out of the batch and tell its reader, unless there is no ending yet."""
        if ending is None:
            return False
        self._scheduler.remove(sequence)
        if isinstance(ending, ServingError):
            sequence.outbox.put(ending)
        else:
            sequence.finish(ending)
        return True
