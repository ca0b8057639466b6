"""JSON schemas: what is not kept to the letter is refused by name, the rest is for the parser.

A keyword that the parser does not know is no error to it, so every keyword is checked here first.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from llguidance import LLMatcher

from grammar.pattern import check_pattern

#: How answers are spelled, as Python's json.dumps does: one spelling for every value, so that what is
#: given is forced, no answer drowns in white space, and no property hides behind an escaped name.
SPELLING = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "json_allowed_escapes": 'nrbtf\\"',
}

#: Characters that this spelling cannot say: control characters without a letter, and half characters.
UNSPELLABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f\ud800-\udfff]")

#: Levels of nesting in the schema's own text; the parser's limit is 128.
MOST_LEVELS = 64

#: The largest integer that every JSON reader holds exactly; beyond, the parser rounds or breaks.
LARGEST_NUMBER = 2**53 - 1

#: The largest length or count of items.
LARGEST_COUNT = 100_000

#: The largest product of all multipleOf of a schema: the parser keeps a state for every remainder.
LARGEST_PERIOD = 10_000

FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)

#: Keywords that say nothing about the answer.
ANNOTATIONS = frozenset(
    {"$schema", "$comment", "title", "description", "default", "examples"}
    | {"deprecated", "readOnly", "writeOnly"}
)

#: Where schemas stand in schemas.
SCHEMA_KEYWORDS = ("items", "additionalProperties")
LIST_KEYWORDS = ("anyOf", "oneOf", "allOf", "prefixItems")
MAP_KEYWORDS = ("properties", "patternProperties", "$defs", "definitions")

Pointer = tuple[str, ...]
Schema = dict[str, Any]


def notation_of_schema(text: str) -> str:
    """Return the schema in the parser's notation. Raises ValueError, naming place and rule."""
    schema = _read(text)
    if not isinstance(schema, dict):
        raise ValueError("schema: must be a JSON object")
    places = dict(_walk(schema, ()))
    for place, part in places.items():
        _check(part, place, places)
    _check_period(places.values())
    return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=SPELLING))  # type: ignore[arg-type]


def _read(text: str) -> Any:
    try:
        schema = json.loads(text, parse_constant=_refuse_constant)
        is_deep = _levels(schema) > MOST_LEVELS
    except RecursionError:
        is_deep = True
    except ValueError as error:
        raise ValueError(f"schema: not JSON: {error}") from error
    if is_deep:
        raise ValueError(f"schema: nested more than {MOST_LEVELS} levels deep")
    return schema


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _levels(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_levels, value), default=0) if isinstance(value, list) else 0


def _walk(schema: Any, place: Pointer) -> Iterator[tuple[Pointer, Schema | bool]]:
    """Yield every schema within the schema, with the names that lead to it."""
    if isinstance(schema, bool):
        yield place, schema
        return
    if not isinstance(schema, dict):
        raise ValueError(f"{_named(place)}: must be a schema")
    yield place, schema
    for keyword in SCHEMA_KEYWORDS:
        if keyword in schema:
            yield from _walk(schema[keyword], (*place, keyword))
    for keyword in LIST_KEYWORDS:
        for index, part in enumerate(_typed(schema, keyword, list, place)):
            yield from _walk(part, (*place, keyword, str(index)))
    for keyword in MAP_KEYWORDS:
        for name, part in _typed(schema, keyword, dict, place).items():
            yield from _walk(part, (*place, keyword, name))


def _typed(schema: Schema, keyword: str, kind: type, place: Pointer) -> Any:
    value = schema.get(keyword, kind())
    if not isinstance(value, kind):
        raise ValueError(
            f"{_named((*place, keyword))}: must be a JSON {'object' if kind is dict else 'array'}"
        )
    return value


def _check(schema: Schema | bool, place: Pointer, places: dict[Pointer, Schema | bool]) -> None:
    if isinstance(schema, bool):
        return
    for keyword, value in schema.items():
        if keyword == "$ref":
            _check_reference(value, (*place, keyword), places)
        elif keyword in CHECKS:
            CHECKS[keyword](value, (*place, keyword))
        elif keyword not in ANNOTATIONS and (keyword != "$id" or place):
            raise ValueError(f"{_named((*place, keyword))}: this keyword is not supported")
    required = len(set(schema.get("required", ())))
    if schema.get("minProperties", 0) > required + 1:
        raise ValueError(
            f"{_named((*place, 'minProperties'))}: more than one beyond those required is not supported"
        )


def _check_reference(value: Any, place: Pointer, places: dict[Pointer, Schema | bool]) -> None:
    if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
        raise ValueError(f"{_named(place)}: must point into the schema itself, as #/$defs/name does")
    names = unquote(value).split("/")[1:]
    if tuple(name.replace("~1", "/").replace("~0", "~") for name in names) not in places:
        raise ValueError(f"{_named(place)}: there is no schema at {value}")


def _check_number(value: Any, place: Pointer) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_named(place)}: must be a number")
    if not abs(value) <= LARGEST_NUMBER:
        raise ValueError(f"{_named(place)}: numbers beyond {LARGEST_NUMBER} are not supported")


def _check_count(value: Any, place: Pointer) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_COUNT:
        raise ValueError(f"{_named(place)}: must be an integer from 0 to {LARGEST_COUNT}")


def _check_pattern(value: Any, place: Pointer) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{_named(place)}: must be a text")
    try:
        check_pattern(value)
    except ValueError as error:
        raise ValueError(f"{_named(place)}: {error}") from error


def _check_format(value: Any, place: Pointer) -> None:
    if value not in FORMATS:
        raise ValueError(f"{_named(place)}: {value!r} is not supported, only {', '.join(sorted(FORMATS))}")


def _check_names(value: Any, place: Pointer) -> None:
    for name in value:
        _check_value(name, place)


def _check_patterns(value: Schema, place: Pointer) -> None:
    for pattern in value:
        _check_pattern(pattern, place)


def _check_required(value: Any, place: Pointer) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{_named(place)}: must be an array of texts")
    _check_names(value, place)


def _check_value(value: Any, place: Pointer) -> None:
    """See that a value which the answer may have to hold can be spelled."""
    match value:
        case str() if UNSPELLABLE.search(value):
            raise ValueError(f"{_named(place)}: control and half characters are not supported: {value!r}")
        case bool():
            return
        case int() | float():
            _check_number(value, place)
        case list():
            _check_names(value, place)
        case dict():
            _check_names([*value, *value.values()], place)


def _accept(_value: Any, _place: Pointer) -> None:
    """Leave it to the walk or to the parser, which reads it exactly."""


def _check_period(schemas: Iterable[Schema | bool]) -> None:
    """Bound what the parser must count: remainders of all multipleOf that may meet in one number."""
    divisors = {part["multipleOf"] for part in schemas if isinstance(part, dict) and "multipleOf" in part}
    if math.prod(map(_period, divisors)) > LARGEST_PERIOD:
        raise ValueError(f"schema: all multipleOf multiplied exceed {LARGEST_PERIOD}")


def _period(divisor: float) -> int:
    """Return the divisor without its decimal point: 25 for 0.25."""
    _, digits, exponent = Decimal(repr(divisor)).normalize().as_tuple()
    number = int("".join(map(str, digits)))
    return number * 10**exponent if isinstance(exponent, int) and exponent > 0 else number


def _named(place: Pointer) -> str:
    return "schema" + "".join(f".{name}" for name in place)


CHECKS: dict[str, Callable[[Any, Pointer], None]] = {
    "type": _accept,
    "enum": _check_value,
    "const": _check_value,
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _check_number
    ),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _check_count
    ),
    "pattern": _check_pattern,
    "format": _check_format,
    "required": _check_required,
    "properties": _check_names,
    "patternProperties": _check_patterns,
    **dict.fromkeys((*SCHEMA_KEYWORDS, *LIST_KEYWORDS, "$defs", "definitions"), _accept),
}
