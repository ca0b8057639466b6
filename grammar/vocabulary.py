"""A tokenizer's tokens as bytes, and how it spells a text that must come out exact."""

from collections.abc import Callable, Sequence


class Vocabulary:
    """The bytes of every token id; None for ids that stand for no text (special tokens).

    `encode` is the tokenizer's own way to split a text, without special tokens; it may be wrong by a
    space at the start or lose characters, for `spell` checks it. `drops_first_space` says that the
    tokenizer's decoder takes one space off the start of a text (sentencepiece does).
    """

    def __init__(
        self,
        tokens: Sequence[bytes | None],
        encode: Callable[[str], Sequence[int]],
        *,
        drops_first_space: bool = False,
    ) -> None:
        self.tokens = tuple(tokens)
        self.drops_first_space = drops_first_space
        self._encode = encode
        # Of equal tokens the last: sentencepiece's bytes come first and stand in for missing characters.
        self._id_of = {token: id_ for id_, token in enumerate(self.tokens) if token}
        self._longest_bytes = max((len(token) for token in self._id_of), default=0)

    def __len__(self) -> int:
        return len(self.tokens)

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """Return the text of the ids as bytes; special tokens say nothing."""
        return b"".join(self.tokens[id_] or b"" for id_ in ids)

    def spell(self, text: str) -> tuple[int, ...]:
        """Return ids whose bytes are exactly the text's UTF-8.

        The tokenizer's own spelling is taken where it is exact, since that is what the model has
        learned; else the longest token that fits is taken again and again.

        Raises ValueError if the vocabulary lacks a byte of the text.
        """
        wanted = text.encode()
        ids = tuple(self._encode(text))
        if all(self.tokens[id_] is not None for id_ in ids) and self.bytes_of(ids) == wanted:
            return ids
        return tuple(self._longest_matches(wanted))

    def _longest_matches(self, wanted: bytes) -> list[int]:
        ids: list[int] = []
        start = 0
        while start < len(wanted):
            for end in range(min(len(wanted), start + self._longest_bytes), start, -1):
                id_ = self._id_of.get(wanted[start:end])
                if id_ is not None:
                    break
            else:
                raise ValueError(f"no token of the vocabulary spells the byte {wanted[start]:#04x}")
            ids.append(id_)
            start = end
        return ids
