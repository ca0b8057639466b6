"""What comes back while a task runs: what was left out, any number of tokens, then exactly one ending."""

from typing import Literal, Self

from msgspec import Struct

from contract.errors import ServingError

#: A value that a database column may hold and that JSON can say.
Scalar = str | int | float | bool | None

StopReason = Literal["stop", "length"]


class TokenLogprob(Struct, frozen=True):
    """A token's bytes (none for a special token) and the natural logarithm of its probability, as the
    model gives it: before temperature, penalties and constraints. `top` are the most probable ones there.
    `id` is None where the model does not tell it.
    """

    id: int | None
    token: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


class Token(Struct, frozen=True, tag="token", omit_defaults=True):
    """Newly generated token ids and the text that became printable with them.

    `choice` is the answer that it belongs to, where several were asked for, and `index` the place of
    the first id in that answer; both are counted from 0. Where a model does not tell ids, `ids` are
    empty and `index` stays 0. `text` holds whole characters only and is
    empty while a character is still split over tokens. `logprobs` holds one entry per id if they were
    asked for. A token without ids and text says "still at work": it gives whoever iterates a moment to
    stop, and is not passed on.
    """

    index: int
    ids: tuple[int, ...]
    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing but "still at work"."""
        return not self.ids and not self.text


class Trimmed(Struct, frozen=True, tag="trimmed"):
    """The conversation did not fit: so many of its oldest messages were left out. Comes before any token."""

    messages: int


class Usage(Struct, frozen=True):
    """What the task cost, in tokens and steps.

    `steps` counts forward passes that served this task, prompt included; `cached_tokens` are the
    prompt's tokens that were found in the prefix cache. Of several choices, completion tokens are added
    up and steps are those of the longest.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    steps: int = 0


class Timings(Struct, frozen=True):
    """Where the time went, in seconds, measured in the worker from the task's arrival."""

    first_token_seconds: float = 0.0
    total_seconds: float = 0.0


class FoundRow(Struct, frozen=True):
    """A row of the database: its primary key and its selected columns."""

    key: Scalar
    fields: dict[str, Scalar]


class RowsAnswer(Struct, frozen=True, tag="rows"):
    """What a template task found: rows of the snapshot, and how many rows were considered."""

    rows: tuple[FoundRow, ...]
    considered_rows: int


class TokensAnswer(Struct, frozen=True, tag="tokens"):
    """A text's tokens, in order."""

    tokens: tuple[str, ...]


class Finished(Struct, frozen=True, tag="finished"):
    """The task is done: how each choice ended; `answer` is there for tasks other than chats."""

    reasons: tuple[StopReason, ...] = ("stop",)
    usage: Usage = Usage()
    timings: Timings = Timings()
    answer: RowsAnswer | TokensAnswer | None = None

    @property
    def reason(self) -> StopReason:
        """How the first choice ended, which mostly is the only one."""
        return self.reasons[0]

    @classmethod
    def interrupted(cls, choices: int, said_tokens: int) -> Self:
        """The task is over with what it has said so far, as if it had been done."""
        reason: StopReason = "stop"
        return cls((reason,) * choices, Usage(completion_tokens=said_tokens))


class Failed(Struct, frozen=True, tag="failed"):
    """The task ended without an answer."""

    code: str
    message: str
    status: int
    retryable: bool
    retry_after_seconds: float | None = None

    @classmethod
    def from_error(cls, error: Exception) -> Self:
        """Tell a known error as it is; keep the details of any other for the log."""
        known = error if isinstance(error, ServingError) else ServingError("internal error")
        return cls(known.code, str(known), known.status, known.retryable, known.retry_after_seconds)


Event = Token | Trimmed | Finished | Failed
