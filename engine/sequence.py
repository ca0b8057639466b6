"""One choice of an answer in the making."""

from dataclasses import dataclass, field

from contract import Sampling, StopReason, Token, TokenLogprob, Usage, WorkerLost
from engine.answer import Answer, Ended
from engine.detokenizer import Detokenizer
from engine.prompt_lookup import PromptLookup
from engine.tally import Tally
from grammar import Constraint, Vocabulary


@dataclass(eq=False, slots=True)
class Sequence:
    """Prompt and answer tokens, how many of them are computed, and what decides the next one.

    `tokens` holds the prompt's ids, then the answer's; the first `computed` of them stand in the
    cache, in `blocks`. Everything else follows from the ids: it can be set back to nothing computed
    and goes on where it was, and an answer that was begun elsewhere goes on behind what was `said`.
    """

    answer: Answer
    tokens: list[int]
    prompt_tokens: int
    sampling: Sampling
    seed: int
    limit_tokens: int
    end_ids: frozenset[int]
    vocabulary: Vocabulary
    detokenizer: Detokenizer
    constraint: Constraint | None = None
    choice: int = 0
    said: tuple[int, ...] = ()
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    cached_tokens: int = 0
    steps: int = 0
    tally: Tally = field(default_factory=Tally)
    lookup: PromptLookup = field(default_factory=PromptLookup)

    @property
    def pending(self) -> int:
        """How many tokens wait to be computed."""
        return len(self.tokens) - self.computed

    @property
    def answered(self) -> int:
        """How many tokens the answer has so far."""
        return len(self.tokens) - self.prompt_tokens

    def begin(self) -> StopReason | None:
        """Take the tokens that the constraint leaves no choice about, and those that were said before.

        Says whether they are the whole answer. Raises WorkerLost if the answer cannot have begun like that.
        """
        ending = self._append(self._forced())
        try:
            while ending is None and self.answered < len(self.said):
                ending = self.accept(self.said[self.answered])
        except ValueError as error:
            raise _cannot_go_on() from error
        if tuple(self.tokens[self.prompt_tokens :][: len(self.said)]) != self.said:
            raise _cannot_go_on()
        return ending

    def accept(self, token: int, logprob: TokenLogprob | None = None) -> StopReason | None:
        """Append a chosen token and those that are forced by it; say whether the answer ends here.

        Raises ValueError if the constraint does not allow it.
        """
        if token in self.end_ids and (self.constraint is None or self.constraint.may_end):
            return "stop"
        if self.constraint is not None:
            self.constraint.advance(token)
        return self._append([token, *self._forced()], () if logprob is None else (logprob,))

    def guess(self, room: int) -> tuple[int, ...]:
        """Return at most `room` tokens that may well come next, fewer than the answer has room for."""
        return self.lookup.guess(self.tokens, min(room, self.limit_tokens - len(self.tokens) - 1))

    def finish(self, reason: StopReason) -> None:
        """Tell the reader the rest of the text and how it ended."""
        if held := self.detokenizer.finish():
            self.answer.tell(Token(self.answered, (), held, self.choice))
        usage = Usage(self.prompt_tokens, self.cached_tokens, self.answered, self.steps)
        self.answer.tell(Ended(self.choice, reason, usage))

    def _forced(self) -> list[int]:
        """Tokens whose logits were asked for are chosen one by one, though there is no choice."""
        if self.constraint is None or self.sampling.logprobs is not None:
            return []
        return self.constraint.take_forced()

    def _append(self, ids: list[int], logprobs: tuple[TokenLogprob, ...] = ()) -> StopReason | None:
        """Append the ids that there is room for, tell the reader, and say whether the answer ends here."""
        room = self.limit_tokens - len(self.tokens)
        self._emit(ids[:room], logprobs)
        if self.detokenizer.found_stop:
            return "stop"
        if self.constraint is not None and self.constraint.is_finished and len(ids) <= room:
            return "stop"
        return "length" if len(self.tokens) >= self.limit_tokens else None

    def _emit(self, ids: list[int], logprobs: tuple[TokenLogprob, ...]) -> None:
        if not ids:
            return
        index = self.answered
        self.tokens += ids
        text = self.detokenizer.feed(ids, may_stop=self.answered >= self.sampling.min_tokens)
        self.answer.tell(Token(index, tuple(ids), text, self.choice, logprobs))


def _cannot_go_on() -> WorkerLost:
    return WorkerLost("the worker was lost, and what it had said cannot be gone on with here")
