"""Puts an answer together from the chunks of a stream: its tokens, and how each choice ended."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from contract import Completion, OutputError, Sampling, StopReason, Timings, Token, TokenLogprob, UpstreamDown
from workers.upstream.openai_wire import Chunk, ChunkChoice, ChunkUsage, read_logprobs, read_usage
from workers.upstream.refusals import error_in_stream
from workers.upstream.stops import EchoCut, StopCut

#: Ends after which the text is not an answer: withheld, broken off, or a call of tools that nobody gave.
NO_ANSWER = frozenset({"content_filter", "error", "abort", "tool_calls", "function_call"})


@dataclass(slots=True)
class _Choice:
    """One choice so far; log probabilities wait for the text that they belong to."""

    echo: EchoCut
    cut: StopCut
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: StopReason | None = None


class Telling:
    """The choices of one request; `first` is the number of the first among all that the caller wants.

    `begun` is what the server says again before anything new.
    """

    def __init__(self, sampling: Sampling, first: int = 0, begun: str = "") -> None:
        self._first = first
        self._choices = [_Choice(EchoCut(begun), StopCut(sampling.stop)) for _ in range(sampling.choices)]
        self._usage: ChunkUsage | None = None

    @property
    def is_cut(self) -> bool:
        """Whether nothing more is wanted, although the upstream may go on."""
        return all(choice.cut.is_cut for choice in self._choices)

    def hear(self, chunk: Chunk) -> Iterator[Token]:
        """Yield what may be told now, an empty token for progress without text (a model that thinks).

        Raises what an error in the stream stands for, and OutputError.
        """
        if chunk.error is not None:
            raise error_in_stream(chunk.error)
        self._usage = chunk.usage or self._usage
        for said in chunk.choices:
            if not 0 <= said.index < len(self._choices):
                raise OutputError(f"the upstream sent choice {said.index}, which nobody asked for")
            yield from self._hear(said, self._choices[said.index])

    def end(self) -> Completion:
        """Return how it ended. Raises UpstreamDown if it broke off before."""
        reasons: list[StopReason] = []
        for choice in self._choices:
            if choice.reason is None:
                raise UpstreamDown("the upstream broke off in the middle of the answer")
            reasons.append(choice.reason)
        return Completion(tuple(reasons), read_usage(self._usage), Timings())

    def _hear(self, said: ChunkChoice, choice: _Choice) -> Iterator[Token]:
        if choice.reason is not None:
            return
        choice.logprobs += read_logprobs(said.logprobs)
        delta = said.delta
        new = choice.echo.feed((delta.content if delta is not None else None) or "")
        if said.finish_reason is not None:
            new += choice.echo.flush()
        text = choice.cut.feed(new)
        if choice.cut.is_cut:
            choice.reason = "stop"
        elif said.finish_reason is not None:
            choice.reason = _reason(said.finish_reason)
            text += choice.cut.flush()
        if text:
            logprobs, choice.logprobs = tuple(choice.logprobs), []
            yield Token(0, (), text, self._first + said.index, logprobs)
        elif delta is not None and (delta.content or delta.reasoning_content or delta.reasoning):
            yield Token(0, (), "", self._first + said.index)


def _reason(told: str) -> StopReason:
    if told in NO_ANSWER:
        raise OutputError(f"the upstream ended the answer with {told!r}")
    return "length" if told == "length" else "stop"
