"""Reads a JSON body into a struct, and says in plain words which field breaks which rule."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from contract import InvalidRequest

Shape = TypeVar("Shape")

#: Characters of a refused value that an error message shows: enough to recognise it.
SHOWN_VALUE_CHARACTERS = 60

#: Plain words for msgspec's names of JSON types.
TYPE_WORDS = {
    "object": "an object",
    "array": "a list",
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
}

# Possessive, and happy with a string that never ends: linear in whatever a caller sends.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_PATH = re.compile(r" - at (`key` in )?`\$(.*)`$")
_ANY_VALUE = "[...]"
_POSITION = re.compile(r"\[\d+\]")
_PATH_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`")
_WRONG_TYPE = re.compile(r"Expected `([\w| ]+)`, got `(\w+)`")
_WRONG_NUMBER = re.compile(r"Expected `(?:int|float)` (<=|>=|<|>) (\S+)")
_WRONG_LENGTH = re.compile(r"Expected `(str|array)` of length (<=|>=) (\d+)")


class Spelling(NamedTuple):
    """How a protocol spells a shape, for what is said to its callers.

    `choices` lists the values of an enumerated field by its place, such as `messages.role`; `names`
    gives the protocol's own name of a field that the shape calls otherwise.
    """

    choices: Mapping[str, Sequence[str]] = {}
    names: Mapping[str, str] = {}


#: Of a shape that needs no more words than msgspec has.
PLAIN = Spelling()


def parse_body(body: bytes, shape: type[Shape], *, max_depth: int) -> Shape:
    """Return the body as a `shape`, or raise InvalidRequest naming field, rule and value."""
    return convert_fields(decode_json(body, max_depth=max_depth), shape)


def decode_json(body: bytes, *, max_depth: int) -> Any:
    """Decode strict JSON: UTF-8 only, no NaN or Infinity, brackets at most `max_depth` deep."""
    if not body.strip():
        raise InvalidRequest("body: must be a JSON object, got nothing")
    if _is_deeper_than(max_depth, body):
        raise InvalidRequest(f"body: JSON must nest at most {max_depth} levels deep")
    try:
        return msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest("body: must be UTF-8") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest(f"body: must be JSON: {_plain_decode_error(error)}") from error


def convert_fields(
    value: Any, shape: type[Shape], spelling: Spelling = PLAIN, *, strict: bool = True
) -> Shape:
    """Return plain values as a `shape`; `strict` False also takes numbers written as strings."""
    try:
        return msgspec.convert(value, shape, strict=strict, str_keys=True)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_in_plain_words(str(error), value, spelling)) from error


def show(value: Any) -> str:
    """Return a value as JSON, cut to a length that fits an error message."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_VALUE_CHARACTERS else text[:SHOWN_VALUE_CHARACTERS] + "…"


def _is_deeper_than(max_depth: int, body: bytes) -> bool:
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > max_depth:
            return True
    return False


def _plain_decode_error(error: Exception) -> str:
    text = str(error).removeprefix("JSON is malformed: ")
    return "number out of range" if "integer string conversion" in text else text[:1].lower() + text[1:]


def _in_plain_words(error: str, body: Any, spelling: Spelling) -> str:
    """Turn msgspec's "Expected `float` <= 2.0 - at `$.temperature`" into words for the caller."""
    found = _PATH.search(error)
    rule = error[: found.start()] if found else error
    path = found[2] if found else ""
    each = "each key " if found and found[1] else "each value " if path.endswith(_ANY_VALUE) else ""
    path = path.removesuffix(_ANY_VALUE)
    place = _spelled(path.lstrip("."), spelling)
    if field := _FIELD.fullmatch(rule):
        name = f"{place}.{field[2]}" if place else _spelled(field[2], spelling)
        return f"{name}: {'is required' if field[1] == 'missing required' else 'unknown field'}"
    choices = spelling.choices.get(_POSITION.sub("", place))
    return f"{place or 'body'}: {each}{_rule_in_words(rule, choices, _value_at(path, body))}"


def _spelled(place: str, spelling: Spelling) -> str:
    name, dot, rest = place.partition(".")
    return spelling.names.get(name, name) + dot + rest


def _rule_in_words(rule: str, choices: Sequence[str] | None, value: Any) -> str:
    if wrong := _WRONG_TYPE.fullmatch(rule):
        wanted = " or ".join(TYPE_WORDS.get(name, name) for name in wrong[1].split(" | "))
        return f"must be {wanted}, got {show(value)}"
    if wrong := _WRONG_NUMBER.fullmatch(rule):
        return f"must be {wrong[1]} {wrong[2].removesuffix('.0')}, got {show(value)}"
    if wrong := _WRONG_LENGTH.fullmatch(rule):
        amount = "at most" if wrong[2] == "<=" else "at least"
        unit = "characters" if wrong[1] == "str" else "entries"
        return f"must have {amount} {wrong[3]} {unit}, got {len(value)}"
    if choices:
        return f"must be one of {', '.join(choices)}, got {show(value)}"
    return f"{rule[:1].lower()}{rule[1:]}, got {show(value)}"


def _value_at(path: str, body: Any) -> Any:
    value = body
    for name, position in _PATH_STEP.findall(path):
        value = value[name] if name else value[int(position)]
    return value
