"""Guesses the next tokens of an answer from where its last ones stood before in the same text."""

from collections.abc import Sequence

#: Tokens that must be equal for what followed them to be a guess: fewer are wrong too often.
EQUAL_TOKENS = 3

#: Steps without a guess after the n-th wrong one in a row: 2ⁿ, at most 2 to the power of this.
MOST_WRONG = 6


class PromptLookup:
    """The guesses of one sequence: what followed the last `EQUAL_TOKENS` tokens when they came before.

    Answers often copy from their prompt (Saxena, "Prompt lookup decoding", 2023). A guess costs rows
    of a step, so one that was wrong is followed by steps without any, the longer the more were wrong.
    """

    def __init__(self) -> None:
        self._followed_by: dict[tuple[int, ...], int] = {}
        self._known = EQUAL_TOKENS
        self._wrong = 0
        self._pause = 0

    def guess(self, tokens: Sequence[int], most: int) -> tuple[int, ...]:
        """Return at most so many tokens that may follow; `tokens` only ever grow."""
        if most < 1:
            return ()
        if self._pause:
            self._pause -= 1
            return ()
        for place in range(self._known, len(tokens)):
            self._followed_by[tuple(tokens[place - EQUAL_TOKENS : place])] = place
        self._known = max(self._known, len(tokens))
        place = self._followed_by.get(tuple(tokens[-EQUAL_TOKENS:]), len(tokens))
        return tuple(tokens[place : place + most])

    def learn(self, right: int) -> None:
        """Note how many tokens of the last guess came true."""
        if right:
            self._wrong = 0
        else:
            self._wrong = min(self._wrong + 1, MOST_WRONG)
            self._pause = 2**self._wrong
