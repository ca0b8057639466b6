"""Answers made of rows: a JSON object "1", "2", … → values, none invented, none twice.

The answer is spelled piece by piece, each piece tokenized on its own:

    {"1": "  value  ", "2": "  value  …  "}          or   {}
    ^open           ^separator              ^close         ^empty

Values lie in a trie of tokens that is built once for a catalogue; what an answer has used up is
counted beside it. JSON strings are prefix-free (a bare quote ends them), so at every place a token
belongs either to a value or to the piece after it, never to both.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from contract import ChooseRows
from grammar.vocabulary import Vocabulary

ROOT = 0


@dataclass(slots=True)
class Node:
    """A place in the trie: where tokens lead, the value that may end here, how many lie at or below."""

    children: dict[int, int] = field(default_factory=dict)
    value: int | None = None
    values_below: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Fixed text between values; behind it a value comes, or the end."""

    ids: tuple[int, ...]
    is_end: bool


class RowsGrammar:
    """A catalogue compiled for one vocabulary; shared by all answers over it.

    Raises ValueError if the values are not distinct, if the vocabulary cannot spell one, or if
    `at_most` is less than 1.
    """

    def __init__(self, form: ChooseRows, vocabulary: Vocabulary) -> None:
        if len(set(form.values)) != len(form.values):
            raise ValueError("values must be distinct")
        if form.at_most < 1:
            raise ValueError(f"at_most must be at least 1, got {form.at_most}")
        self.form = form
        self.nodes = [Node()]
        self._vocabulary = vocabulary
        self._separators: dict[int, Piece] = {}
        for index, value in enumerate(form.values):
            self._insert(index, vocabulary.spell(json.dumps(value, ensure_ascii=False)[1:-1]))
        self.open = Piece(vocabulary.spell('{"1": "'), is_end=False)
        self.close = Piece(vocabulary.spell('"}'), is_end=True)
        self.empty = Piece(vocabulary.spell("{}"), is_end=True)

    def start(self) -> "RowsConstraint":
        """Return the state of an answer that has not begun."""
        return RowsConstraint(self)

    def first_pieces(self) -> list[Piece]:
        """Return what the answer may begin with."""
        pieces = [self.open] if self.form.values else []
        if self.form.none_allowed or not self.form.values:
            pieces.append(self.empty)
        return pieces

    def pieces_after(self, picked: int) -> list[Piece]:
        """Return what may stand behind the `picked`-th value."""
        if picked < min(self.form.at_most, len(self.form.values)):
            return [self._separator(picked + 1), self.close]
        return [self.close]

    def _separator(self, number: int) -> Piece:
        if number not in self._separators:
            ids = self._vocabulary.spell(f'", "{number}": "')
            self._separators[number] = Piece(ids, is_end=False)
        return self._separators[number]

    def _insert(self, value: int, ids: Sequence[int]) -> None:
        node = self.nodes[ROOT]
        node.values_below += 1
        for id_ in ids:
            if id_ not in node.children:
                node.children[id_] = len(self.nodes)
                self.nodes.append(Node())
            node = self.nodes[node.children[id_]]
            node.values_below += 1
        node.value = value


class RowsConstraint:
    """The state of one answer: inside a value (a node of the trie), or inside the pieces around values."""

    def __init__(self, grammar: RowsGrammar) -> None:
        self._grammar = grammar
        self._pieces = grammar.first_pieces()
        self._piece_position = 0
        self._path: list[int] = []
        self._used_below: Counter[int] = Counter()
        self._picked: list[int] = []
        self._is_finished = False

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    @property
    def may_end(self) -> bool:
        return self._is_finished

    def prepare(self) -> None:
        """There is nothing to work out: a node knows its children."""

    @property
    def picked(self) -> tuple[int, ...]:
        """The indices of the values picked so far, in the answer's order."""
        return tuple(self._picked)

    def allowed(self) -> list[int]:
        if self._is_finished:
            return []
        if not self._path:
            return list(dict.fromkeys(piece.ids[self._piece_position] for piece in self._pieces))
        ids = self._open_children()
        if self._may_end_here():
            ids += [piece.ids[0] for piece in self._grammar.pieces_after(len(self._picked) + 1)]
        return list(dict.fromkeys(ids))

    def advance(self, token: int) -> None:
        if token not in self.allowed():
            raise ValueError(f"token {token} is not allowed here")
        if self._path and token in self._open_children():
            self._path.append(self._grammar.nodes[self._path[-1]].children[token])
            return
        if self._path:
            self._pick()
        self._advance_in_pieces(token)

    def take_forced(self) -> list[int]:
        taken: list[int] = []
        while not self._is_finished and len(options := self.allowed()) == 1:
            self.advance(options[0])
            taken.append(options[0])
        return taken

    def _open_children(self) -> list[int]:
        nodes = self._grammar.nodes
        return [
            token
            for token, child in nodes[self._path[-1]].children.items()
            if nodes[child].values_below > self._used_below[child]
        ]

    def _may_end_here(self) -> bool:
        value = self._grammar.nodes[self._path[-1]].value
        return value is not None and value not in self._picked

    def _pick(self) -> None:
        value = self._grammar.nodes[self._path[-1]].value
        assert value is not None
        self._used_below.update(self._path)
        self._picked.append(value)
        self._path = []
        self._pieces = self._grammar.pieces_after(len(self._picked))
        self._piece_position = 0

    def _advance_in_pieces(self, token: int) -> None:
        self._pieces = [piece for piece in self._pieces if piece.ids[self._piece_position] == token]
        self._piece_position += 1
        whole = [piece for piece in self._pieces if len(piece.ids) == self._piece_position]
        if whole:
            self._is_finished = whole[0].is_end
            self._path = [] if whole[0].is_end else [ROOT]
