"""What the engine knows of a constraint while it generates."""

from collections.abc import Sequence
from typing import Protocol


class Constraint(Protocol):
    """The state of one answer under a grammar; it follows from the tokens advanced over, nothing else."""

    @property
    def is_finished(self) -> bool:
        """Whether the answer is whole: nothing may follow."""
        ...

    def allowed(self) -> Sequence[int]:
        """Return the ids that may come next, each once; never empty before the end."""
        ...

    def advance(self, token: int) -> None:
        """Go on over a token. Raises ValueError if it is not allowed."""
        ...

    def take_forced(self) -> list[int]:
        """Advance over every token that has no alternative and return those tokens."""
        ...
