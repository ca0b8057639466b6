"""Batches of one split: catalogues of a size with as many wishes as fit, and some rows of conversations."""

from collections.abc import Sequence
from random import Random

from demo.batches import Batch, collate
from demo.catalogues import Catalogues
from demo.conversations import Conversations
from demo.packing import Packer, Row
from demo.topics import Topic

#: Lengths of rows: few, so that a compiled step is reused.
LENGTHS = (256, 384, 512, 640, 768, 1024)
#: Share of rows with conversations.
CHAT_SHARE = 0.2
#: A catalogue takes at most this share of its row; the rest is for wishes.
_LARGEST_PREFIX = 0.66
#: Tokens of a catalogue: about this many for the instruction and for each title.
_INSTRUCTION_TOKENS, _TITLE_TOKENS = 35, 7.2


class Examples:
    """Makes batches; everything random comes from the generator that is passed in."""

    def __init__(self, topics: Sequence[Topic], packer: Packer, *, held_out: bool = False) -> None:
        self._conversations = Conversations(topics)
        self._catalogues = Catalogues(topics, self._conversations, held_out=held_out)
        self._packer = packer
        self._held_out = held_out

    def batch(self, size: int, tokens: int, random: Random) -> Batch:
        """About `tokens` tokens in rows of catalogues with `size` titles."""
        length = row_length(size)
        rows = [self._row(size, length, random) for _ in range(max(1, tokens // length))]
        return collate(rows, length)

    def _row(self, size: int, length: int, random: Random) -> Row:
        if not self._held_out and random.random() < CHAT_SHARE:
            return self._chat_row(length, random)
        while True:
            catalogue = self._catalogues.make(size, random)
            row = self._packer.catalogue_row(catalogue)
            if len(row) <= length * _LARGEST_PREFIX + 24:
                break
            size -= max(1, size // 10)
        while True:
            branch = self._packer.wish_branch(catalogue, row, self._catalogues.wish(catalogue, random))
            if len(row) + len(branch) > length:
                return row
            row.branches.append(branch)

    def _chat_row(self, length: int, random: Random) -> Row:
        row = self._packer.chat_row()
        while True:
            branch = self._packer.chat_branch(self._conversations.make(random))
            if len(row) + len(branch) > length:
                return row
            row.branches.append(branch)


def row_length(size: int) -> int:
    """The shortest length in which a catalogue of `size` titles leaves room for wishes."""
    wanted = (_INSTRUCTION_TOKENS + size * _TITLE_TOKENS) / _LARGEST_PREFIX
    return next((length for length in LENGTHS if length >= wanted), LENGTHS[-1])
