"""Which texts training may never see: a stable twentieth, and the books of the classic example."""

import hashlib

from records.embedded import TITLES

#: One text in so many is kept for measuring.
HELD_OUT_EVERY = 20

#: The catalogue of the classic example; no title in it is ever generated.
RESERVED_TITLES: tuple[str, ...] = TITLES


def is_held_out(text: str) -> bool:
    """Whether a title or a wish is kept for measuring: a hash of its text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % HELD_OUT_EVERY == 0


def is_reserved(title: str) -> bool:
    """Whether a title belongs to the classic catalogue."""
    return title in RESERVED_TITLES
