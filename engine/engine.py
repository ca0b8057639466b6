"""The engine: sequences join and leave the running batch at every step."""

import atexit
import logging
import secrets
import time
from collections.abc import Generator
from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate
from queue import Empty, Full, Queue
from threading import Event as Flag
from threading import Thread

import torch

from contract import (
    MAX_SEED,
    AnswerForm,
    CannotDo,
    Completion,
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    Sampling,
    ServingError,
    StopReason,
    Token,
)
from engine.answer import Answer
from engine.batch import Batch, Executor, build_batch
from engine.cache import BlockCache, Cache
from engine.detokenizer import Detokenizer
from engine.masks import Masks, cannot_go_on
from engine.pace import Pace
from engine.sampler import CHOOSING_THREADS, Chosen, check_sampling, choose
from engine.scheduler import Scheduler, Work
from engine.sequence import Sequence
from grammar import CompiledGrammar, Vocabulary, compile_grammar

logger = logging.getLogger(__name__)

#: Tokens of one step: long prompts are computed in chunks of at most this many, so that running
#: streams are never held up for longer than one such chunk takes.
STEP_TOKENS = 512

#: Seconds the engine's thread sleeps at most when it has nothing to do.
IDLE_SECONDS = 1.0

#: Compiled forms kept for the next answer in the same form.
GRAMMARS_KEPT = 16


class Engine:
    """Owns an executor and the thread that drives it; everything else talks to it through `generate`.

    `end_ids` are the tokens that end an answer; at most `capacity` sequences run at once, each with
    at most `context_tokens` tokens, prompt and answer together. `cache` is the bookkeeping of the
    executor's memory, blocks anywhere if it is left out. With `whole_prompt_tokens` a prompt is computed
    in one step, and has at most so many tokens. The weights know ids below `model_ids`, those of the
    vocabulary if it is left out.
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
        cache: Cache | None = None,
        whole_prompt_tokens: int | None = None,
        model_ids: int | None = None,
    ) -> None:
        self.executor = executor
        self._vocabulary = vocabulary
        self._end_ids = end_ids
        self.context_tokens = min(context_tokens, executor.cache_blocks * executor.block_tokens)
        self._whole_prompt_tokens = whole_prompt_tokens
        self._model_ids = len(vocabulary) if model_ids is None else model_ids
        self._scheduler = Scheduler(
            cache or BlockCache(executor.cache_blocks, executor.block_tokens),
            step_tokens,
            capacity,
            executor.cheap_rows,
            whole_prompts=whole_prompt_tokens is not None,
        )
        self._pace = Pace(step_tokens)
        self._masks = Masks()
        self._choosers = ThreadPoolExecutor(CHOOSING_THREADS, thread_name_prefix="choosing")
        self._arrivals: Queue[list[Sequence]] = Queue(maxsize=4 * capacity)
        self._grammar = lru_cache(maxsize=GRAMMARS_KEPT)(self._compile)
        self._stopping = Flag()
        self._thread = Thread(target=self._live, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread that computes. It is also stopped at exit, if nobody has done it before.

        A thread that Python ends inside a library aborts the process.
        """
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present step; whoever still reads gets Draining."""
        atexit.unregister(self.stop)
        self._stopping.set()
        with suppress(Full):  # a full queue wakes it as well
            self._arrivals.put_nowait([])
        if self._thread.ident is not None:
            self._thread.join()
        self._masks.close()
        self._choosers.shutdown()

    def generate(
        self,
        prompt: list[int],
        sampling: Sampling,
        form: AnswerForm | None = None,
        *,
        goes_on: bool = False,
        said: Items[Items[int]] = (),
    ) -> Generator[Token, None, Completion]:
        """Yield the answer's tokens, empty ones while nothing comes; return how it ended.

        `goes_on` says that the prompt ends amid a text, so that a space at the answer's start counts;
        `said` is as in `contract.Model`.
        Closing the generator takes the sequence out of the batch before the next step. Raises
        InvalidRequest for ids or sampling that cannot be, PromptTooLong if prompt and one token do not
        fit the context, Overloaded if too many wait, CannotDo if the form is wrong or not supported, and
        whatever befell the batch.
        """
        answer = Answer(sampling.choices)
        sequences = self._sequences(answer, prompt, sampling, form, goes_on=goes_on)
        for sequence, ids in zip(sequences, said, strict=False):
            sequence.said = tuple(ids)
        try:
            if len(self._scheduler.waiting) >= self._arrivals.maxsize:
                raise Full
            self._arrivals.put_nowait(sequences)
        except Full:
            raise Overloaded("too many tasks wait for this model", retry_after_seconds=1) from None
        try:
            return (yield from answer.read(self._thread.is_alive))
        finally:
            answer.is_cancelled = True

    def step(self) -> None:
        """Compute what every running sequence has waiting, and choose tokens for those that are due."""
        works = self._scheduler.plan(self._pace.rows)
        due = [work for work in works if work.reaches_the_end]
        self._masks.begin(work.sequence for work in due)
        logits = self._run(build_batch(works, self.executor.block_tokens))
        for work in works:
            self._scheduler.complete(work)
        self._choose(due, logits)

    def _run(self, batch: Batch) -> torch.Tensor:
        """Compute the rows; behind the vocabulary the logits have padding, which stands for no token."""
        started = time.perf_counter()
        logits = self.executor.run(batch)
        self._pace.note(len(batch.tokens), time.perf_counter() - started)
        return logits[:, : len(self._vocabulary)]

    def _sequences(
        self,
        answer: Answer,
        prompt: list[int],
        sampling: Sampling,
        form: AnswerForm | None,
        *,
        goes_on: bool,
    ) -> list[Sequence]:
        """Return one sequence per choice. Raises what is wrong with the request."""
        self._check_prompt(prompt)
        check_sampling(sampling, len(self._vocabulary))
        grammar = None if form is None else self._grammar(form)
        room = self.context_tokens if sampling.max_tokens is None else len(prompt) + sampling.max_tokens
        is_exact = goes_on or form is not None
        seed = secrets.randbelow(MAX_SEED) if sampling.seed is None else sampling.seed
        return [
            Sequence(
                answer=answer,
                choice=choice,
                tokens=list(prompt),
                prompt_tokens=len(prompt),
                sampling=sampling,
                seed=seed,
                limit_tokens=min(self.context_tokens, room),
                end_ids=self._end_ids,
                vocabulary=self._vocabulary,
                detokenizer=Detokenizer(self._vocabulary, sampling.stop, is_exact=is_exact),
                constraint=None if grammar is None else grammar.start(),
            )
            for choice in range(sampling.choices)
        ]

    def _check_prompt(self, prompt: list[int]) -> None:
        if not prompt:
            raise InvalidRequest("the prompt is empty")
        if min(prompt) < 0 or max(prompt) >= self._model_ids:
            raise InvalidRequest("the prompt holds a special token that the model's weights do not know")
        if len(prompt) >= self.context_tokens:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; with room for an answer, "
                f"at most {self.context_tokens - 1} fit the context"
            )
        if self._whole_prompt_tokens is not None and len(prompt) > self._whole_prompt_tokens:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; the model takes at most "
                f"{self._whole_prompt_tokens} at once and cannot take them in parts"
            )

    def _compile(self, form: AnswerForm) -> CompiledGrammar:
        try:
            return compile_grammar(form, self._vocabulary)
        except ValueError as error:
            raise CannotDo(f"this model cannot answer in that form: {error}") from error

    def _live(self) -> None:
        while not self._stopping.is_set():
            self._turn_safely()

    def _turn_safely(self) -> None:
        """A turn that fails ends the answers that took part in it, not the engine."""
        try:
            self._take_arrivals()
            self._drop_cancelled()
            if self._scheduler.has_work:
                self.step()
        except Exception:
            logger.exception("A step failed")
            for sequence in list(self._scheduler.running):
                self._scheduler.remove(sequence)
                sequence.answer.tell(ServingError("the model failed on this batch"))

    def _take_arrivals(self) -> None:
        """Let new sequences in; sleep until one comes if there is nothing else to do."""
        deadline = time.monotonic() + (0 if self._scheduler.has_work else IDLE_SECONDS)
        while True:
            try:
                sequences = self._arrivals.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return
            for sequence in sequences:
                self._let_in(sequence)
            deadline = 0.0

    def _let_in(self, sequence: Sequence) -> None:
        """Whatever is wrong with one of them is told to its own reader."""
        try:
            reason = sequence.begin()
            if reason is None:
                self._scheduler.add(sequence)
            else:
                sequence.finish(reason)
        except ServingError as error:
            sequence.answer.tell(error)
        except ValueError as error:
            sequence.answer.tell(cannot_go_on(error))
        except Exception:
            logger.exception("An answer cannot begin")
            sequence.answer.tell(ServingError("the model failed as this answer began"))

    def _drop_cancelled(self) -> None:
        scheduler = self._scheduler
        for sequence in [*scheduler.running, *scheduler.waiting]:
            if sequence.answer.is_cancelled:
                scheduler.remove(sequence)

    def _choose(self, due: list[Work], logits: torch.Tensor) -> None:
        """Choose a token for each that is due, and more where guesses come true: their logits are there."""
        first_rows = accumulate((1 + len(work.guess) for work in due), initial=0)
        turn = list(zip(due, first_rows, strict=False))
        while turn := [(work, row) for work, row in turn if self._goes_on(work.sequence)]:
            rows = [row for _, row in turn]
            wanted = logits if len(rows) == len(logits) else [logits[row] for row in rows]
            chosen = choose(wanted, [work.sequence for work, _ in turn], self._choosers)
            turn = [
                (work, row + taken)
                for (work, row), choice in zip(turn, chosen, strict=True)
                if (taken := self._advance(work, choice))
            ]

    def _goes_on(self, sequence: Sequence) -> bool:
        """Whether there is something to choose; if not, the answer ends here."""
        return not self._end(sequence, self._masks.ending(sequence))

    def _advance(self, work: Work, chosen: Chosen | ServingError) -> int:
        """Append what was chosen and what is forced by it.

        Returns how many tokens that were if the guess foresaw them all, else 0: then the next ones
        have to wait for another step.
        """
        sequence, before = work.sequence, len(work.sequence.tokens)
        if self._end(sequence, _accept(sequence, chosen)):
            return 0
        said = sequence.tokens[before:]
        right = work.foreseen(before, said)
        self._scheduler.advance(sequence, before + right)
        if right == len(said):
            return right
        if work.guess:
            sequence.lookup.learn(before + right - work.end)
        return 0

    def _end(self, sequence: Sequence, ending: StopReason | ServingError | None) -> bool:
        """Take it out of the batch and tell its reader, unless there is no ending yet."""
        if ending is None:
            return False
        self._scheduler.remove(sequence)
        if isinstance(ending, ServingError):
            sequence.answer.tell(ending)
        else:
            sequence.finish(ending)
        return True


def _accept(sequence: Sequence, chosen: Chosen | ServingError) -> StopReason | ServingError | None:
    if isinstance(chosen, ServingError):
        return chosen
    try:
        return sequence.accept(chosen.token, chosen.logprob)
    except ValueError as error:
        return cannot_go_on(error)
