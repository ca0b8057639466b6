"""How an upstream is reached: what a person can say about it beside its address."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reach:
    """The key that the upstream wants, never printed, and how long it may take.

    `connect_seconds` is for the connection, `first_token_seconds` from the request to the first token
    (of an upstream that does not stream: to the whole answer), `pause_seconds` from one token to the next.
    `context_tokens` 0 takes what the upstream tells of itself.
    """

    api_key: str | None = field(default=None, repr=False)
    connect_seconds: float = 5.0
    first_token_seconds: float = 300.0
    pause_seconds: float = 60.0
    context_tokens: int = 0
