"""An executor that computes nothing but remembers what every cache slot holds, and checks every row."""

from dataclasses import dataclass, field

from engine.batch import Batch, build_batch
from engine.cache import BlockCache
from engine.scheduler import Work


@dataclass
class SlotChecker:
    """Slot → the whole text up to its token: reading another text than one's own is found at once."""

    cache: BlockCache
    held: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def run(self, works: list[Work]) -> None:
        """Write the rows of a step, then read each span's context back."""
        batch = build_batch(works, self.cache.block_tokens)
        assert len(set(batch.slots)) == len(batch.slots), "two rows are written to one slot"
        for work, span in zip(works, batch.spans, strict=True):
            self._write(work, batch, range(span.first_row, span.first_row + span.rows))
        for work, span in zip(works, batch.spans, strict=True):
            assert self._read(span.blocks, span.context_tokens) == tuple(text_of(work))
        due: list[int] = []
        for work, span in zip(works, batch.spans, strict=True):
            if work.reaches_the_end:
                end = span.first_row + span.rows
                due += range(end - 1 - len(work.guess), end)
        assert batch.logit_rows == due

    def _write(self, work: Work, batch: Batch, rows: range) -> None:
        tokens = text_of(work)
        for row in rows:
            block = batch.slots[row] // self.cache.block_tokens
            assert self.cache._holders[block] == 1, "a block that others read is written to"
            assert not self.cache._is_indexed(block), "a block whose content is known is written to"
            assert batch.tokens[row] == tokens[batch.positions[row]]
            self.held[batch.slots[row]] = tuple(tokens[: batch.positions[row] + 1])

    def _read(self, blocks: tuple[int, ...], length: int) -> tuple[int, ...]:
        """Return the text that stands in the blocks; each token must stand behind its own past."""
        size = self.cache.block_tokens
        texts = [self.held[blocks[place // size] * size + place % size] for place in range(length)]
        assert all(text == texts[-1][: len(text)] for text in texts)
        assert [len(text) for text in texts] == list(range(1, length + 1))
        return texts[-1]


def text_of(work: Work) -> list[int]:
    """What the work's rows are the end of: known tokens, then the guess."""
    return [*work.sequence.tokens[: work.end], *work.guess]


def check_bookkeeping(cache: BlockCache, holdings: list[list[int]]) -> None:
    """Every block has one role, and what is known of it is known from both sides."""
    blocks = set(range(cache.blocks))
    held = {block for holding in holdings for block in holding}
    free, kept = set(cache._free), set(cache._kept)
    assert len(cache._free) == len(free)
    assert free | kept | held == blocks
    assert len(free) + len(kept) + len(held) == cache.blocks == len(held) + cache.available
    for holding in holdings:
        assert len(set(holding)) == len(holding)
    for block in blocks:
        assert cache._holders[block] == sum(holding.count(block) for holding in holdings)
    assert all(cache._is_indexed(block) for block in kept)
    assert not free & cache._path_of_block.keys()
    assert cache._block_of_path == {
        path: block for block, path in cache._path_of_block.items() if cache._is_indexed(block)
    }
    path_of_content, content_of_path = cache._index._path_of_content, cache._index._content_of_path
    assert path_of_content.keys() == set(content_of_path.values())
    assert content_of_path.keys() == cache._block_of_path.keys() == set(path_of_content.values())
