"""What comes back while a task runs: any number of tokens, then exactly one ending."""

from typing import Literal, Self

from msgspec import Struct

from contract.errors import ServingError

#: A value that a database column may hold and that JSON can say.
Scalar = str | int | float | bool | None

StopReason = Literal["stop", "length"]


class Token(Struct, frozen=True, tag="token"):
    """Newly generated token ids and the text that became printable with them.

    `index` is the place of the first id in the answer, counted from 0. `text` holds whole
    characters only and is empty while a character is still split over tokens. A token without ids and
    text says "still at work": it gives whoever iterates a moment to stop, and is not passed on.
    """

    index: int
    ids: tuple[int, ...]
    text: str

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing but "still at work"."""
        return not self.ids and not self.text


class Usage(Struct, frozen=True):
    """What the task cost, in tokens and steps.

    `steps` counts forward passes that served this task, prompt included; `cached_tokens` are the
    prompt's tokens that were found in the prefix cache.
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


class RowsAnswer(Struct, frozen=True):
    """What a template task found: rows of the snapshot, and how many rows were considered."""

    rows: tuple[FoundRow, ...]
    considered_rows: int


class Finished(Struct, frozen=True, tag="finished"):
    """The task is done; `answer` is there for template tasks only."""

    reason: StopReason = "stop"
    usage: Usage = Usage()
    timings: Timings = Timings()
    answer: RowsAnswer | None = None


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


Event = Token | Finished | Failed
