"""Regular expressions as they are meant: what the parser would read differently is refused."""

import re

from llguidance import LLMatcher, regex_to_lark

#: What may open a group: nothing, ?: or a name, and s, which lets the dot be a line's end. (Letters
#: without case, flag i, are other letters in every language.)
GROUP = re.compile(r"\((?!\?)|\(\?(?:s?:|s\)|P?<[A-Za-z_]\w*>)")

#: Inside a class these are set operations to the parser and plain characters to everyone else.
SET_OPERATIONS = ("&&", "--", "~~")


def notation_of_regex(pattern: str) -> str:
    """Return the pattern in the parser's notation; \\d, \\w and \\s mean ASCII. Raises ValueError."""
    check_pattern(pattern)
    return str(LLMatcher.grammar_from_regex(regex_to_lark(pattern, "dws")))


def literal(text: str) -> str:
    """Return a pattern that matches the text and nothing else."""
    return "".join(
        character if character.isascii() and character.isalnum() else f"\\x{{{ord(character):x}}}"
        for character in text
    )


def check_pattern(pattern: str) -> None:
    """Refuse what regular expressions of other languages read differently.

    Look-around, references and word boundaries are left to the parser, which refuses them by name.
    Raises ValueError.
    """
    place, before = 0, ""
    while place < len(pattern):
        character = pattern[place]
        if character == "[":
            place = _end_of_class(pattern, place)
        elif character == "\\":
            place += 2
        elif character == "(":
            place = _end_of_group_opening(pattern, place)
            character = "("
        elif character == "+" and before in "*+?}" and before:
            raise ValueError(f"the pattern {pattern!r} has a possessive quantifier, which is not supported")
        else:
            place += 1
        before = "" if character == "\\" else character
    if place > len(pattern) and pattern[-1] == "\\":
        raise ValueError(f"the pattern {pattern!r} ends in a backslash")


def _end_of_group_opening(pattern: str, start: int) -> int:
    opening = GROUP.match(pattern, start)
    if opening is None:
        raise ValueError(f"the pattern {pattern!r} has a group {pattern[start : start + 4]!r}, not supported")
    return opening.end()


def _end_of_class(pattern: str, start: int) -> int:
    place = start + (2 if pattern.startswith("[^", start) else 1)
    if pattern.startswith("]", place):
        raise ValueError(f"the pattern {pattern!r} has a class that begins with ]; write \\]")
    while place < len(pattern) and pattern[place] != "]":
        if pattern[place] == "[":
            raise ValueError(f"the pattern {pattern!r} has [ in a class; write \\[")
        if pattern[place : place + 2] in SET_OPERATIONS:
            raise ValueError(
                f"the pattern {pattern!r} has {pattern[place : place + 2]} in a class; escape it"
            )
        place += 2 if pattern[place] == "\\" else 1
    return place + 1
