"""How much one request, and all requests together, may ask of a gateway."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """The bounds of one gateway process; the API keys are never printed.

    `body_bytes` bounds a request's body, `json_depth` how deep its brackets nest, `messages` and
    `prompt_characters` a conversation, `task_seconds` the time from a task's arrival to its end,
    `streams` the tasks under way at once. No `api_keys` means that nobody has to show one.
    """

    body_bytes: int = 1024 * 1024
    json_depth: int = 32
    prompt_characters: int = 400_000
    messages: int = 1000
    task_seconds: float = 600.0
    streams: int = 1024
    api_keys: tuple[str, ...] = field(default=(), repr=False)
