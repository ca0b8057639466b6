"""Random steps, and torch's paged kernel written out: what it computes, and what it asks of its arguments."""

from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import torch

from engine.batch import Batch, Span
from engine.executors.layer_cache import LayerCache
from engine.executors.paged_attention import PAGE_TOKENS

NEEDS_GPU = "needs a GPU"


@dataclass
class ReferenceKernel:
    """Stands in for `varlen_attn`: refuses what the flash kernel refuses or computes wrongly."""

    page_multiple: int = PAGE_TOKENS
    calls: int = 0

    def __call__(
        self,
        query,
        keys,
        values,
        row_starts,
        context_starts,
        most_rows,
        most_context,
        *,
        scale,
        window_size,
        enable_gqa,
        seqused_k,
        block_table,
        num_splits,
    ):
        self.calls += 1
        for ints in (row_starts, context_starts, seqused_k, block_table):
            assert ints.dtype == torch.int32
            assert ints.is_contiguous()
        assert row_starts.shape == context_starts.shape == (len(seqused_k) + 1,)
        assert block_table.shape[0] == len(seqused_k)
        assert keys.shape[1] % self.page_multiple == 0
        assert query.stride(-1) == keys.stride(-1) == values.stride(-1) == 1
        assert enable_gqa == (query.shape[1] != keys.shape[2])
        starts, contexts = row_starts.tolist(), seqused_k.tolist()
        check_rows(starts, len(query), most_rows, window_size)
        assert most_context >= max(contexts)
        if most_rows > 1 or query.shape[1] == keys.shape[2]:
            assert num_splits == 1, "divided contexts are put together wrongly here"
        output = torch.full_like(query, torch.nan)
        for reader, context in enumerate(contexts):
            rows = slice(starts[reader], starts[reader + 1])
            blocks = block_table[reader, : -(-context // keys.shape[1])].long()
            output[rows] = causal(
                query[rows], _read(keys, blocks, context), _read(values, blocks, context), scale
            )
        return output


def check_rows(starts, rows, most_rows, window_size):
    """Refuse readers' rows that the kernel would take wrongly."""
    assert starts[0] == 0
    assert starts[-1] == rows
    assert most_rows >= max(end - start for start, end in pairwise(starts))
    if most_rows == 1:
        assert window_size == (-1, -1), "the kernel folds heads only without a mask"
        assert starts == list(range(len(starts))), "the kernel folds heads only if each reader has a row"
    else:
        assert window_size == (-1, 0)


def _read(pages, blocks, context):
    return pages[blocks].flatten(0, 1)[:context]


def causal(query, keys, values, scale):
    """[rows, heads, size] over [context, key heads, size]; the last row sees all of the context."""
    repeats = query.shape[1] // keys.shape[1]
    keys, values = (part.float().repeat_interleave(repeats, dim=1) for part in (keys, values))
    scores = torch.einsum("rhs,chs->hrc", query.float(), keys) * scale
    hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=query.device).triu(
        1 + len(keys) - len(query)
    )
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("hrc,chs->rhs", weights, values).to(query.dtype)


@dataclass
class Text:
    """A sequence that a test computes bit by bit."""

    tokens: list[int]
    blocks: tuple[int, ...]
    computed: int = 0


@dataclass
class Steps:
    """Batches of some texts: in each, texts are computed further by a chunk, a few rows or one row."""

    random: Random
    block_tokens: int
    texts: list[Text] = field(default_factory=list)

    def add(self, lengths, vocabulary_size):
        for length in lengths:
            first = 1 + sum(len(text.blocks) for text in self.texts)
            blocks = list(range(first, first + -(-length // self.block_tokens)))
            self.random.shuffle(blocks)
            tokens = [self.random.randrange(vocabulary_size) for _ in range(length)]
            self.texts.append(Text(tokens, tuple(blocks)))
        return self

    def __iter__(self):
        while going := [text for text in self.texts if text.computed < len(text.tokens)]:
            chosen = self.random.sample(going, self.random.randint(1, len(going)))
            yield batch_of([(text, self._rows(text)) for text in chosen], self.block_tokens, self.random)

    def _rows(self, text):
        left = len(text.tokens) - text.computed
        return min(left, self.random.choice([1, 1, 1, 2, 3, left]))


def batch_of(works, block_tokens, random) -> Batch:
    """Lay out (text, rows) and count them as computed; logits of each text's last rows, or of none."""
    batch = Batch([], [], [], [], [])
    for text, rows in works:
        first, start = len(batch.tokens), text.computed
        text.computed += rows
        batch.tokens.extend(text.tokens[start : text.computed])
        batch.positions.extend(range(start, text.computed))
        batch.slots.extend(
            text.blocks[place // block_tokens] * block_tokens + place % block_tokens
            for place in range(start, text.computed)
        )
        batch.spans.append(Span(first, rows, text.computed, text.blocks))
        batch.logit_rows.extend(range(first + rows - random.randint(0, min(rows, 3)), first + rows))
    return batch


def random_batch(random: Random, block_tokens: int, blocks: int, most_rows: int) -> Batch:
    """Return a step whose texts share blocks at will, as only reading allows."""
    works = []
    for _ in range(random.randint(1, 6)):
        context = random.randint(1, blocks * block_tokens)
        held = random.randint(-(-context // block_tokens), blocks)
        rows = random.randint(1, min(most_rows, context))
        table = tuple(random.sample(range(blocks), held))
        works.append((Text([0] * context, table, context - rows), rows))
    return batch_of(works, block_tokens, random)


def random_cache(slots: int, key_heads: int, size: int, **options) -> LayerCache:
    return LayerCache(
        torch.randn(slots, key_heads, size, **options), torch.randn(slots, key_heads, size, **options)
    )


class Rerun:
    """A recording that computes anew, so that recorded steps can be tried without a GPU."""

    def __init__(self, compute):
        self._compute = compute
        self.logits = compute()
        self.replays = 0

    def replay(self):
        self.replays += 1
        self.logits.copy_(self._compute())


@dataclass
class RerunRecorder:
    """Makes reruns; after `most` of them memory has run out."""

    most: int = 1000
    recordings: list[Rerun] = field(default_factory=list)

    def record(self, compute):
        if len(self.recordings) >= self.most:
            raise torch.OutOfMemoryError("no memory is left")
        self.recordings.append(Rerun(compute))
        return self.recordings[-1]
