"""Which block of the key/value cache holds what: bookkeeping only, no tensor.

A block holds the keys and values of `block_tokens` neighbouring tokens. It is free, or held by one
or more sequences, or kept: nobody holds it, but its content is known, and who comes with the same
prefix takes it over. Kept blocks are given away least recently used first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from engine.path_index import ROOT_PATH, Content, PathIndex

#: Tokens of a block: small enough that little is wasted, large enough that tables stay short.
BLOCK_TOKENS = 16


class Cache(Protocol):
    """What the scheduler asks: which blocks are there, and what they hold.

    Blocks are given to a sequence in the order of its text; `match` and `take` begin it, `allocate`
    goes on, `release` ends it.
    """

    block_tokens: int

    @property
    def available(self) -> int: ...

    def match(self, tokens: Sequence[int]) -> list[int]: ...

    def content(self, blocks: Sequence[int], index: int, tokens: Sequence[int]) -> Content | None: ...

    def fits(self, matched: Sequence[int], needed: int, owed: int) -> bool: ...

    def take(self, matched: list[int]) -> list[int]: ...

    def allocate(self, behind: Sequence[int]) -> int | None: ...

    def publish(self, blocks: Sequence[int], index: int, tokens: Sequence[int]) -> None: ...

    def release(self, blocks: Sequence[int]) -> None: ...


class BlockCache:
    """The blocks of one executor, each anywhere in its memory."""

    def __init__(self, blocks: int, block_tokens: int = BLOCK_TOKENS) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self._free = list(range(blocks - 1, -1, -1))
        self._holders = [0] * blocks
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._index = PathIndex(block_tokens)
        self._path_of_block: dict[int, int] = {}
        self._block_of_path: dict[int, int] = {}

    @property
    def available(self) -> int:
        """How many blocks can be allocated now, kept ones included."""
        return len(self._free) + len(self._kept)

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Hold and return the blocks of the longest known prefix; at least one token is left to compute."""
        found = [self._block_of_path[path] for path in self._index.match(tokens)]
        for block in found:
            self._kept.pop(block, None)
            self._holders[block] += 1
        return found

    def content(self, blocks: Sequence[int], index: int, tokens: Sequence[int]) -> Content | None:
        """Return what the `index`-th block of a text will hold; see `PathIndex.content`."""
        path = self._path_of_block[blocks[index - 1]] if index else ROOT_PATH
        return self._index.content(path, index, tokens)

    def fits(self, matched: Sequence[int], needed: int, owed: int) -> bool:
        """Whether `needed` blocks more than the matched ones are there, and those owed to others too."""
        return needed + owed <= self.available

    def take(self, matched: list[int]) -> list[int]:
        """Return the blocks that a sequence begins with: the matched ones, which it shares."""
        return matched

    def allocate(self, behind: Sequence[int] = ()) -> int | None:
        """Hold and return a block of unknown content, or None if all are held."""
        if self._free:
            block = self._free.pop()
        elif self._kept:
            block, _ = self._kept.popitem(last=False)
            self._forget(block)
        else:
            return None
        self._holders[block] = 1
        return block

    def publish(self, blocks: Sequence[int], index: int, tokens: Sequence[int]) -> None:
        """Make known that `blocks[index]` now holds its part of the text."""
        block = blocks[index]
        path = self._path_of_block[block] = self._index.publish(self.content(blocks, index, tokens))
        self._block_of_path.setdefault(path, block)

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of a sequence's blocks, the last one first: a prefix outlives what hangs on it."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            assert self._holders[block] >= 0, "a block was released twice"
            if self._holders[block]:
                continue
            if self._is_indexed(block):
                self._kept[block] = None
            else:
                self._path_of_block.pop(block, None)
                self._free.append(block)

    def _is_indexed(self, block: int) -> bool:
        path = self._path_of_block.get(block)
        return path is not None and self._block_of_path.get(path) == block

    def _forget(self, block: int) -> None:
        path = self._path_of_block.pop(block)
        del self._block_of_path[path]
        self._index.forget(path)
