"""Reads EBNF: rules `name ::= …` of texts, classes, groups, alternatives and repetitions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from grammar.pattern import literal

#: Levels of brackets in one rule; the parser's own notation goes not much deeper.
MOST_LEVELS = 24

#: The highest number in braces behind an item.
MOST_REPETITIONS = 10_000

TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
    |(?P<define>::=)
    |(?P<name>[A-Za-z_][\w-]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*")
    |(?P<class>\[\^?(?:[^\]\\\n]|\\.)*\])
    |(?P<times>[*+?]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})
    |(?P<sign>[|().])""",
    re.VERBOSE | re.ASCII,
)

CHARACTER = re.compile(
    r"""\\(?:x(?P<two>[0-9A-Fa-f]{2})|u(?P<four>[0-9A-Fa-f]{4})|U(?P<eight>[0-9A-Fa-f]{8})
    |(?P<escaped>.))|(?P<plain>[^\\])""",
    re.VERBOSE | re.DOTALL,
)

ESCAPES = {"n": "\n", "r": "\r", "t": "\t"} | {sign: sign for sign in '"\\[]-^/'}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text or a class of characters, as a regular expression without any slash."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Name:
    """Whatever the rule of that name allows."""

    name: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """At least so many times, and at most so many; None means without limit."""

    part: "Node"
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Chain:
    """One after the other; none at all is the empty text."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them."""

    parts: tuple["Node", ...]


Node = Pattern | Name | Repeat | Chain | Either


@dataclass(frozen=True, slots=True)
class Lexeme:
    kind: str
    text: str
    line: int


END = Lexeme("end", "the end", 0)


def read_ebnf(text: str) -> dict[str, Node]:
    """Return the rules by name. Raises ValueError, naming the line."""
    return _Reader(list(_lexemes(text))).rules()


def _lexemes(text: str) -> Iterator[Lexeme]:
    place, line = 0, 1
    while place < len(text):
        found = TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"grammar: line {line}: cannot read {text[place : place + 12]!r}")
        if found.lastgroup != "skip":
            yield Lexeme(str(found.lastgroup), found[0], line)
        line += found[0].count("\n")
        place = found.end()


class _Reader:
    def __init__(self, lexemes: list[Lexeme]) -> None:
        self._lexemes = lexemes
        self._place = 0
        self._level = 0

    def rules(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        while self._next() is not END:
            name = self._expect("name", "a rule's name")
            self._expect("define", "::=")
            if name.text in rules:
                raise ValueError(f"grammar: line {name.line}: rule {name.text} stands there twice")
            rules[name.text] = self._either()
        return rules

    def _next(self, ahead: int = 0) -> Lexeme:
        place = self._place + ahead
        return self._lexemes[place] if place < len(self._lexemes) else END

    def _expect(self, kind: str, what: str) -> Lexeme:
        lexeme = self._next()
        if lexeme.kind != kind and lexeme.text != what:
            where = f"line {lexeme.line}: " if lexeme.line else ""
            raise ValueError(f"grammar: {where}{what} is expected before {lexeme.text}")
        self._place += 1
        return lexeme

    def _either(self) -> Node:
        parts = [self._chain()]
        while self._next().text == "|":
            self._place += 1
            parts.append(self._chain())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _chain(self) -> Node:
        parts: list[Node] = []
        while not self._is_past_the_chain():
            part = self._item()
            while self._next().kind == "times":
                part = _repeat(part, self._next())
                self._place += 1
            parts.append(part)
        return parts[0] if len(parts) == 1 else Chain(tuple(parts))

    def _is_past_the_chain(self) -> bool:
        lexeme = self._next()
        if lexeme.kind == "name":
            return self._next(1).kind == "define"
        return lexeme is END or lexeme.text in ("|", ")")

    def _item(self) -> Node:
        lexeme = self._next()
        if lexeme.text == "(":
            return self._group()
        self._place += 1
        match lexeme.kind:
            case "name":
                return Name(lexeme.text)
            case "text":
                return Pattern(literal("".join(_characters(lexeme.text[1:-1], lexeme.line))))
            case "class":
                return Pattern(_class(lexeme))
        if lexeme.text == ".":
            return Pattern("(?s:.)")
        raise ValueError(f"grammar: line {lexeme.line}: {lexeme.text} stands behind nothing")

    def _group(self) -> Node:
        opening = self._next()
        self._place += 1
        self._level += 1
        if self._level > MOST_LEVELS:
            raise ValueError(f"grammar: line {opening.line}: more than {MOST_LEVELS} levels of brackets")
        inside = self._either()
        self._expect("", ")")
        self._level -= 1
        return inside


def _repeat(part: Node, lexeme: Lexeme) -> Repeat:
    signs: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
    if lexeme.text in signs:
        return Repeat(part, *signs[lexeme.text])
    numbers = [number.strip() for number in lexeme.text[1:-1].split(",")]
    least = int(numbers[0])
    most = int(numbers[-1]) if numbers[-1] else None
    if (least if most is None else most) > MOST_REPETITIONS or (most is not None and most < least):
        raise ValueError(f"grammar: line {lexeme.line}: {lexeme.text} is not within 0 to {MOST_REPETITIONS}")
    return Repeat(part, least, most)


def _characters(text: str, line: int) -> Iterator[str]:
    for found in CHARACTER.finditer(text):
        code = found["two"] or found["four"] or found["eight"]
        if code is not None:
            yield _character(int(code, 16), line)
        elif found["plain"] is not None:
            yield found["plain"]
        elif found["escaped"] in ESCAPES:
            yield ESCAPES[found["escaped"]]
        else:
            raise ValueError(f"grammar: line {line}: \\{found['escaped']} is no escape known here")


def _character(code: int, line: int) -> str:
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError(f"grammar: line {line}: {code:#x} is no character")
    return chr(code)


def _class(lexeme: Lexeme) -> str:
    """Return the class with every character as its number, so that none has a meaning of its own."""
    inside = lexeme.text[1:-1]
    negation = "^" if inside.startswith("^") else ""
    parts = [found[0] for found in CHARACTER.finditer(inside[len(negation) :])]
    if not parts:
        raise ValueError(f"grammar: line {lexeme.line}: the class {lexeme.text} is empty")
    members: list[str] = []
    place = 0
    while place < len(parts):
        is_range = place + 2 < len(parts) and parts[place + 1] == "-"
        ends = parts[place : place + 3 : 2] if is_range else parts[place : place + 1]
        codes = [ord("".join(_characters(end, lexeme.line))) for end in ends]
        if codes[0] > codes[-1]:
            raise ValueError(f"grammar: line {lexeme.line}: the class {lexeme.text} has a range backwards")
        members.append("-".join(f"\\x{{{code:x}}}" for code in codes))
        place += 3 if is_range else 1
    return f"[{negation}{''.join(members)}]"
