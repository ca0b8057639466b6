"""What the engine knows of a constraint while it generates."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: The ids that may come next: a list where they are few, else one bool for every id of the vocabulary.
Allowed = list[int] | NDArray[np.bool_]


class Constraint(Protocol):
    """The state of one answer under a grammar; it follows from the tokens advanced over, nothing else.

    Tokens that end an answer are not its business: they may be chosen where `may_end` is true.
    """

    @property
    def is_finished(self) -> bool:
        """Whether the answer is whole and nothing may follow."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether the answer is whole as it stands, though more may follow."""
        ...

    def prepare(self) -> None:
        """Work out what `allowed` will return, as long as nothing is advanced over; it may be called
        in another thread meanwhile. Raises ValueError if the answer cannot go on, or at too high a cost.
        """
        ...

    def allowed(self) -> Allowed:
        """Return the ids that may come next, each once; none only if the answer may end.

        Raises ValueError as `prepare` does.
        """
        ...

    def advance(self, token: int) -> None:
        """Go on over a token. Raises ValueError if it is not allowed."""
        ...

    def take_forced(self) -> list[int]:
        """Advance over the tokens that spell what the grammar leaves no choice about, and return them."""
        ...


class CompiledGrammar(Protocol):
    """A form of answers made ready for one vocabulary, shared by all answers of that form."""

    def start(self) -> Constraint:
        """Return the state of an answer that has not begun."""
        ...
