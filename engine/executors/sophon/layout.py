"""How a bmodel lays a language model out, found from the shapes of its nets. Pure.

All layouts have the nets embedding, block_0, block_1, … for several tokens, embedding_cache and
block_cache_0, … for one token behind a cache, and lm_head. They differ in where tokens stand: see
`CacheForm`. Sources: tpu-mlir's `LlmConverter`, and the exporters of sophon-demo's ChatGLM3 and ChatGLM4.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.executors.sophon.graphs import Graph

#: A cache of S rows. "rows": [1, S, heads, size], a token's row is its position. "heads": [1, heads, S,
#: size], a token has a part in each head's rows. "shifted": the context ends at the last row; each new
#: token shifts the whole cache by one row, which the net does itself; [1, S, …] or, with one column for
#: each text of a batch, [S, columns, …].
CacheForm = Literal["rows", "heads", "shifted"]

#: Nets outside the blocks.
NEEDED = ("embedding", "embedding_cache", "lm_head", "block_0", "block_cache_0")

_BLOCK = re.compile(r"block_(\d+)")


class UnknownLayout(Exception):
    """The nets are not those of a layout that is known; the message says what was found."""


class Move(NamedTuple):
    """Elements to copy from one tensor to another."""

    source: int
    target: int
    elements: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What a bmodel can do.

    `context_tokens` is S, `prefill_tokens` the width P of the nets for several tokens. `columns` texts
    are computed by one launch, of which the first is used. `decode_lengths` are the cache lengths that
    nets for one token are compiled for, ascending, the last one S. `takes_history` says that there are
    nets for several tokens behind a cache.
    """

    form: CacheForm
    layers: int
    chips: int
    columns: int
    hidden: int
    heads: int
    head_size: int
    context_tokens: int
    prefill_tokens: int
    decode_lengths: tuple[int, ...]
    is_dynamic: bool
    has_prefill_mask: bool
    takes_history: bool
    logits: int | None

    @property
    def row_elements(self) -> int:
        """Elements of a token's keys in one layer on one chip, all columns together."""
        return self.columns * self.heads * self.head_size

    def first_row(self, position: int, length: int) -> int:
        """Return the cache row of a token, in a context of so many."""
        return self.context_tokens - length + position if self.form == "shifted" else position

    def moves(self, source: tuple[int, int], target: tuple[int, int], tokens: int) -> Iterable[Move]:
        """Yield what to copy for so many tokens; source and target are (rows of the tensor, first row)."""
        (source_rows, source_first), (target_rows, target_first) = source, target
        if source_first + tokens > source_rows or target_first + tokens > target_rows:
            raise ValueError(f"{tokens} rows do not fit: from {source} to {target}")
        if self.form != "heads":
            size = self.row_elements
            yield Move(source_first * size, target_first * size, tokens * size)
            return
        size = self.head_size
        for head in range(self.heads):
            yield Move(
                (head * source_rows + source_first) * size,
                (head * target_rows + target_first) * size,
                tokens * size,
            )


def find_layout(graphs: Mapping[str, Graph]) -> Layout:
    """Return the layout. Raises UnknownLayout."""
    if missing := [name for name in NEEDED if name not in graphs]:
        raise UnknownLayout(
            f"the bmodel has no net {', '.join(missing)}, only {', '.join(sorted(graphs)[:12]) or 'none'}"
        )
    block, cache, head = graphs["block_0"], graphs["block_cache_0"], graphs["lm_head"]
    shapes = _Shapes(block, cache)
    if head.outputs[0].number not in ("int32", "float32"):
        raise UnknownLayout(f"the bmodel's head gives neither token ids nor logits: {head}")
    layers = 1 + max(int(match[1]) for name in graphs if (match := _BLOCK.fullmatch(name)))
    layout = Layout(
        form=shapes.form,
        layers=layers,
        chips=len(block.inputs) // len(block.chip_inputs),
        columns=shapes.columns,
        hidden=shapes.states[-1],
        heads=shapes.heads,
        head_size=shapes.history[-1],
        context_tokens=shapes.context_tokens,
        prefill_tokens=shapes.prefill_tokens,
        decode_lengths=_decode_lengths(cache, shapes),
        is_dynamic=block.is_dynamic,
        has_prefill_mask=len(block.chip_inputs) == 3,
        takes_history="block_kv_0" in graphs,
        logits=None if head.outputs[0].number == "int32" else head.outputs[0].shape[-1],
    )
    _check_blocks(graphs, layout)
    _check_history(graphs, layout)
    return layout


class _Shapes:
    """Reads the shapes of a layer's two nets."""

    def __init__(self, block: Graph, cache: Graph) -> None:
        self.block, self.cache = block, cache
        if len(block.chip_inputs) not in (2, 3) or len(block.chip_outputs) != 3:
            raise self.unknown()
        if len(cache.chip_inputs) != 5 or len(cache.chip_outputs) != 3:
            raise self.unknown()
        self.states = block.inputs[0].shape
        mask, self.history = cache.inputs[2].shape, cache.inputs[3].shape
        if len(self.states) != 3 or len(mask) != 4 or len(self.history) != 4:
            raise self.unknown()
        self.columns = mask[0]
        self.context_tokens = mask[-1] - 1
        self.prefill_tokens = block.inputs[1].shape[-1]
        self.heads = self.history[1] if self._has_heads_first else self.history[2]
        self.form: CacheForm = self._form()

    @property
    def _has_heads_first(self) -> bool:
        return self.history[2] == self.context_tokens != self.history[1]

    def _form(self) -> CacheForm:
        """Compare all shapes with those of each form."""
        rows, heads, size = self.context_tokens, self.heads, self.history[-1]
        hidden, width, columns = self.states[-1], self.prefill_tokens, self.columns
        by_row = ((1, width, hidden), (1, width, heads, size), (1, rows, heads, size))
        by_head = ((1, width, hidden), (1, heads, width, size), (1, heads, rows, size))
        by_column = (
            (width, columns, hidden),
            (width, columns, heads, size),
            (rows, columns, heads, size),
        )
        found = (self.states, self.block.outputs[1].shape, self.history)
        new = self.cache.outputs[1].shape
        if self.block.inputs[1].shape != (columns, width):
            raise self.unknown()
        if columns == 1 and found == by_row and new == (1, 1, heads, size):
            return "rows"
        if columns == 1 and found == by_head and new == (1, heads, 1, size):
            return "heads"
        if new == self.history and (found == by_column or (columns == 1 and found == by_row)):
            return "shifted"
        raise self.unknown()

    def unknown(self) -> UnknownLayout:
        return UnknownLayout(f"the bmodel's layout is not known here; it has {self.block}; {self.cache}")


def _decode_lengths(cache: Graph, shapes: _Shapes) -> tuple[int, ...]:
    """Return the lengths of cache that the net can be given."""
    if shapes.form != "rows":
        return (shapes.context_tokens,)
    lengths = sorted(stage[3][1] for stage in cache.stages)
    if lengths[-1] != shapes.context_tokens or any(
        stage[2][-1] != stage[3][1] + 1 or stage[4] != stage[3] for stage in cache.stages
    ):
        raise shapes.unknown()
    return tuple(lengths)


def _check_blocks(graphs: Mapping[str, Graph], layout: Layout) -> None:
    """All layers must be alike, as they share tensors, and on all chips that the embeddings are on."""
    for name in ("embedding", "embedding_cache"):
        if len(graphs[name].inputs) != layout.chips:
            raise UnknownLayout(
                f"the bmodel's blocks are made for {layout.chips} chips, not so {graphs[name]}"
            )
    kinds = ["block", "block_cache", *(["block_kv"] if layout.takes_history else [])]
    for kind in kinds:
        first = graphs[f"{kind}_0"]
        for layer in range(1, layout.layers):
            other = graphs.get(f"{kind}_{layer}")
            if other is None or _form_of(other) != _form_of(first):
                raise UnknownLayout(f"the bmodel's layers differ: {first}; {other or f'no {kind}_{layer}'}")


def _check_history(graphs: Mapping[str, Graph], layout: Layout) -> None:
    """Nets with a history need no mask and take any number of tokens."""
    if not layout.takes_history:
        return
    net = graphs["block_kv_0"]
    shapes = [port.shape for port in net.chip_inputs]
    history = (1, layout.context_tokens, layout.heads, layout.head_size)
    states = (1, layout.prefill_tokens, layout.hidden)
    wanted = [states, (1, layout.prefill_tokens), history, history]
    if layout.form != "rows" or layout.has_prefill_mask or not net.is_dynamic or shapes != wanted:
        raise UnknownLayout(f"the bmodel's net for tokens behind a history is not known here: {net}")


def _form_of(graph: Graph) -> object:
    ports = (*graph.inputs, *graph.outputs)
    return [(port.shape, port.number) for port in ports], graph.is_dynamic, graph.addr_mode
