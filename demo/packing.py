"""Examples as token rows: one shared prefix, many branches that see the prefix and themselves only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from transformers import PreTrainedTokenizerFast

from demo.catalogues import Catalogue, Wish, answer_pieces, escape, render_prompt
from demo.conversations import Conversation

#: How much a token counts in the loss: where serving has a choice, where it has none, and in chat.
DECISION_WEIGHT, FORCED_WEIGHT, CHAT_WEIGHT = 1.0, 0.1, 0.4


@dataclass(frozen=True)
class Answer:
    """Answer tokens, which of them serving has to decide, and to which title each belongs; -1: to none."""

    ids: tuple[int, ...]
    decisions: tuple[bool, ...]
    titles: tuple[int, ...]


@dataclass(frozen=True)
class Branch:
    """One way on from the prefix: what is read, then what is learned with a weight for each token."""

    read: tuple[int, ...]
    learned: tuple[int, ...]
    weights: tuple[float, ...]
    decisions: tuple[bool, ...]
    #: The topic that the wish means, len(topics) for none of them; None: there is no wish.
    topic: int | None = None
    #: How many titles fit the wish.
    fitting: int = 0
    #: For each learned token, places in the prefix: where its title ends and where the fitting title before
    #: that one ends (0: there is none), and where the token itself stands.
    ends: tuple[int, ...] = ()
    behinds: tuple[int, ...] = ()
    copies: tuple[int | None, ...] = ()

    def __len__(self) -> int:
        return len(self.read) + len(self.learned)


@dataclass(frozen=True)
class Line:
    """Where a title of the prefix starts and ends, its topic, and what stands before it on that topic.

    `ordinal` counts those titles, `behind` is where the last of them ends, 0 if there is none.
    """

    start: int
    position: int
    topic: int
    ordinal: int
    behind: int


@dataclass
class Row:
    """One prefix with its branches: what is computed together."""

    prefix: tuple[int, ...]
    lines: tuple[Line, ...] = ()
    branches: list[Branch] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(branch) for branch in self.branches)


class Packer:
    """Turns catalogues, wishes and conversations into rows and branches."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, topic_count: int) -> None:
        self._tokenizer = tokenizer
        self._topic_count = topic_count
        self.encode = lru_cache(maxsize=100_000)(self._encode)
        self._line_ends = {self.encode('"\n')[0], self.encode('"\n"')[0], self.encode('"\n\n')[0]}
        self._end = self.encode("<|user|>")
        self._speak = self.encode("<|assistant|>\n")

    def chat_row(self) -> Row:
        """A row for conversations: they share only the opening."""
        return Row(self.encode("[gMASK]<sop>"))

    def chat_branch(self, conversation: Conversation) -> Branch:
        """One conversation, of which the last answer is learned."""
        messages = [*conversation.before, ("user", conversation.exchange.question)]
        text = "".join(f"<|{role}|>\n{content}" for role, content in messages)
        learned = (*self.encode(conversation.exchange.answer), *self._end)
        count = len(learned)
        return Branch(self.encode(text) + self._speak, learned, (CHAT_WEIGHT,) * count, (False,) * count)

    def catalogue_row(self, catalogue: Catalogue) -> Row:
        """The prompt up to the wish, with the places where its titles end."""
        text = "[gMASK]<sop><|user|>\n" + render_prompt(catalogue.titles, "")
        prefix = self._encode(text)
        ends = [position for position, token in enumerate(prefix) if token in self._line_ends]
        lines: list[Line] = []
        for index, (position, topic) in enumerate(zip(ends, catalogue.topics, strict=True)):
            start = position - len(self.encode(escape(catalogue.titles[index])))
            before = [line.position for line in lines if line.topic == topic]
            lines.append(Line(start, position, topic, len(before), before[-1] if before else 0))
        return Row(prefix, tuple(lines))

    def wish_branch(self, catalogue: Catalogue, row: Row, wish: Wish) -> Branch:
        """A wish and its answer, token for token as serving generates it."""
        fitting = catalogue.titles_on(wish.topic)
        answer = self.answer(catalogue.titles, fitting)
        weights = tuple(DECISION_WEIGHT if decided else FORCED_WEIGHT for decided in answer.decisions)
        topic = self._topic_count if wish.topic is None else wish.topic
        read = self.encode(wish.text) + self._speak
        lines = [line for line in row.lines if line.topic == wish.topic]
        ends = tuple(0 if number < 0 else lines[number].position for number in answer.titles)
        behinds = tuple(_behind(number, lines) for number in answer.titles)
        copies = _copies(answer, lines)
        return Branch(read, answer.ids, weights, answer.decisions, topic, len(fitting), ends, behinds, copies)

    def answer(self, titles: Sequence[str], chosen: Sequence[str]) -> Answer:
        """Encode an answer piece by piece and mark the tokens that the titles leave open."""
        left = {title: self.encode(escape(title)) for title in titles}
        ids: list[int] = []
        decisions: list[bool] = []
        owners: list[int] = []
        for index, piece in enumerate(answer_pieces(chosen)):
            tokens = self.encode(piece)
            is_title = index % 2 == 1
            decided = (
                _branching(tokens, left.values()) if is_title else (bool(left), *[False] * (len(tokens) - 1))
            )
            ids += tokens
            decisions += decided
            owners += [index // 2 if index // 2 < len(chosen) else -1] * len(tokens)
            if is_title:
                del left[chosen[index // 2]]
        return Answer((*ids, *self._end), (*decisions, False), (*owners, -1))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))


def _behind(number: int, lines: Sequence[Line]) -> int:
    """Where the fitting title before this one ends; before the answer's close stands the last of them."""
    if number >= 0:
        return lines[number].behind
    return lines[-1].position if lines else 0


def _copies(answer: Answer, lines: Sequence[Line]) -> tuple[int | None, ...]:
    """For each answer token: where in the prefix it stands, if it is a title's."""
    copies: list[int | None] = []
    for index, number in enumerate(answer.titles):
        following = answer.titles[index:].count(number)
        length = 0 if number < 0 else lines[number].position - lines[number].start
        copies.append(lines[number].position - following if 0 < following <= length else None)
    return tuple(copies)


def _branching(tokens: Sequence[int], candidates: Iterable[tuple[int, ...]]) -> tuple[bool, ...]:
    """For each token of a title: could another candidate go on differently from here?"""
    alive = list(candidates)
    decided = []
    for depth, token in enumerate(tokens):
        nexts = {candidate[depth] if depth < len(candidate) else None for candidate in alive}
        decided.append(len(nexts) > 1)
        alive = [candidate for candidate in alive if depth < len(candidate) and candidate[depth] == token]
    return tuple(decided)
