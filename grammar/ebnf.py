"""Grammars in EBNF, as llama.cpp and others write them, in the parser's notation.

The parser reads an answer in two layers: terminals, which are regular and read as far as they go, and
rules over them. So that this loses no text, everything regular becomes one terminal, as long as can be;
only what recurses stays a rule.
"""

from collections.abc import Iterable
from itertools import groupby

from llguidance import LLMatcher

from grammar.ebnf_reader import Chain, Either, Name, Node, Pattern, Repeat, read_ebnf

#: The rule that an answer follows.
ROOT = "root"


def notation_of_ebnf(text: str) -> str:
    """Return the grammar in the parser's notation. Raises ValueError, naming rule and reason."""
    rules = read_ebnf(text)
    if ROOT not in rules:
        raise ValueError(f"grammar: there is no rule named {ROOT}")
    names = {name: set(names_in(node)) for name, node in rules.items()}
    for name, used in names.items():
        if missing := used - rules.keys():
            raise ValueError(f"grammar: rule {name} uses {min(missing)}, which is not defined")
    if endless := rules.keys() - _rules_that_end(rules):
        raise ValueError(f"grammar: rule {min(endless)} has no end")
    return str(LLMatcher.grammar_from_lark(_Writer(rules, _regular_rules(names)).write()))


def names_in(node: Node) -> list[str]:
    match node:
        case Name(name):
            return [name]
        case Repeat(part):
            return names_in(part)
        case Chain(parts) | Either(parts):
            return [name for part in parts for name in names_in(part)]
    return []


def _rules_that_end(rules: dict[str, Node]) -> set[str]:
    """Return the rules from which a finite text can be made."""
    ending: set[str] = set()
    while more := {name for name in rules.keys() - ending if _ends(rules[name], ending)}:
        ending |= more
    return ending


def _ends(node: Node, ending: set[str]) -> bool:
    match node:
        case Name(name):
            return name in ending
        case Repeat(part, least):
            return not least or _ends(part, ending)
        case Chain(parts):
            return all(_ends(part, ending) for part in parts)
        case Either(parts):
            return any(_ends(part, ending) for part in parts)
    return True


def _regular_rules(names: dict[str, set[str]]) -> set[str]:
    """Return the rules that do not come back to themselves, nor use one that does."""
    regular: set[str] = set()
    while more := {name for name in names.keys() - regular if names[name] <= regular}:
        regular |= more
    return regular


class _Writer:
    """Writes the rules in the parser's notation: terminals are named T…, rules r…, the first `start`."""

    def __init__(self, rules: dict[str, Node], regular: set[str]) -> None:
        self._rules = rules
        self._regular = regular
        self._names = {name: f"{'T' if name in regular else 'r'}{index}" for index, name in enumerate(rules)}
        self._lines: list[str] = []

    def write(self) -> str:
        for name, node in self._rules.items():
            text = self._terminal(node) if name in self._regular else self._rule(node)
            self._lines.append(f"{self._names[name]}: {text}")
        return "\n".join([f"start: {self._names[ROOT]}", *self._lines])

    def _terminal(self, node: Node) -> str:
        match node:
            case Pattern(pattern):
                return f"/{pattern}/" if pattern else '""'
            case Name(name):
                return self._names[name]
            case Repeat(part, least, most):
                return f"({self._terminal(part)}){_braces(least, most)}"
            case Chain(parts):
                return " ".join(self._in_brackets(part) for part in parts) or '""'
            case Either(parts):
                return " | ".join(self._terminal(part) for part in parts)

    def _in_brackets(self, part: Node) -> str:
        text = self._terminal(part)
        return f"({text})" if isinstance(part, Either) else text

    def _rule(self, node: Node) -> str:
        if self._is_regular(node):
            return self._as_terminal(node)
        match node:
            case Repeat(part, least, most):
                return f"({self._rule(part)}){_braces(least, most)}"
            case Chain(parts):
                runs = groupby(parts, self._is_regular)
                return " ".join(
                    self._as_terminal(Chain(tuple(run))) if is_regular else self._bracketed_rules(run)
                    for is_regular, run in runs
                )
            case Either(parts):
                regular = [part for part in parts if self._is_regular(part)]
                rest = [self._rule(part) for part in parts if not self._is_regular(part)]
                return " | ".join([self._as_terminal(Either(tuple(regular))), *rest] if regular else rest)
        return self._names[node.name] if isinstance(node, Name) else ""

    def _bracketed_rules(self, parts: Iterable[Node]) -> str:
        return " ".join(
            f"({self._rule(part)})" if isinstance(part, Either) else self._rule(part) for part in parts
        )

    def _as_terminal(self, node: Node) -> str:
        """Return the name of a terminal for the node, which is made unless it has one already."""
        if isinstance(node, Name):
            return self._names[node.name]
        name = f"X{len(self._lines)}"
        self._lines.append(f"{name}: {self._terminal(node)}")
        return name

    def _is_regular(self, node: Node) -> bool:
        return set(names_in(node)) <= self._regular


def _braces(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"
