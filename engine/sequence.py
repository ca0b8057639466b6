"""One answer in the making."""

import time
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from queue import SimpleQueue

from contract import Completion, Sampling, ServingError, StopReason, Timings, Token, Usage
from engine.detokenizer import Detokenizer
from grammar import Constraint

#: What an answer's reader gets: tokens, then a completion or an error.
Outcome = Token | Completion | ServingError


@dataclass(eq=False, slots=True)
class Sequence:
    """Prompt and answer tokens, how many of them are computed, and what decides the next one.

    `tokens` holds the prompt's ids, then the answer's; the first `computed` of them stand in the
    cache, in `blocks`. Everything else follows from the ids: it can be set back to nothing computed
    and goes on where it was.
    """

    tokens: list[int]
    prompt_tokens: int
    sampling: Sampling
    seed: int
    limit_tokens: int
    end_ids: frozenset[int]
    detokenizer: Detokenizer
    constraint: Constraint | None = None
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    cached_tokens: int = 0
    steps: int = 0
    is_cancelled: bool = False
    outbox: SimpleQueue[Outcome] = field(default_factory=SimpleQueue)
    arrived: float = field(default_factory=time.monotonic)
    first_token_seconds: float = 0.0

    @property
    def pending(self) -> int:
        """How many tokens wait to be computed."""
        return len(self.tokens) - self.computed

    @property
    def answer(self) -> Ids[int]:
        """The ids generated so far."""
        return self.tokens[self.prompt_tokens :]

    def begin(self) -> StopReason | None:
        """Take the tokens that the constraint leaves no choice about; say whether they are the answer."""
        return None if self.constraint is None else self._append(self.constraint.take_forced())

    def accept(self, token: int) -> StopReason | None:
        """Append a chosen token and those that are forced by it; say whether the answer ends here."""
        if token in self.end_ids and (self.constraint is None or self.constraint.may_end):
            return "stop"
        ids = [token]
        if self.constraint is not None:
            self.constraint.advance(token)
            ids += self.constraint.take_forced()
        return self._append(ids)

    def finish(self, reason: StopReason) -> None:
        """Tell the reader the rest of the text and how it ended."""
        if held := self.detokenizer.finish():
            self.outbox.put(Token(len(self.answer), (), held))
        usage = Usage(self.prompt_tokens, self.cached_tokens, len(self.answer), self.steps)
        timings = Timings(self.first_token_seconds, time.monotonic() - self.arrived)
        self.outbox.put(Completion(reason, usage, timings))

    def _append(self, ids: list[int]) -> StopReason | None:
        """Append the ids that there is room for, tell the reader, and say whether the answer ends here."""
        room = self.limit_tokens - len(self.tokens)
        self._emit(ids[:room])
        if self.detokenizer.found_stop:
            return "stop"
        if self.constraint is not None and self.constraint.is_finished and len(ids) <= room:
            return "stop"
        return "length" if len(self.tokens) >= self.limit_tokens else None

    def _emit(self, ids: list[int]) -> None:
        if not ids:
            return
        index = len(self.answer)
        self.tokens += ids
        if not self.first_token_seconds:
            self.first_token_seconds = time.monotonic() - self.arrived
        self.outbox.put(Token(index, tuple(ids), self.detokenizer.feed(ids)))
