"""Schemas that people send with OpenAI's response_format, and what is in them and what is not."""

from typing import Any, NamedTuple

Schema = dict[str, Any]


class Case(NamedTuple):
    """One feature of JSON schema: values that are valid under the schema, and values that are not."""

    name: str
    schema: Schema
    valid: list[Any]
    invalid: list[Any]


def record(**properties: Any) -> Schema:
    """Return an object of exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


INTEGER: Schema = {"type": "integer"}
STRING: Schema = {"type": "string"}
NODE = record(v=INTEGER, c={"type": "array", "items": {"$ref": "#/$defs/n"}})

CASES = [
    Case("enum", {"enum": ["a", 1, None]}, ["a", 1, None], ["b", 2]),
    Case("enum of objects", {"enum": [{"x": [1]}]}, [{"x": [1]}], [{"x": [2]}]),
    Case("const object", {"const": {"a": 1}}, [{"a": 1}], [{"a": 2}]),
    Case("required, no others", record(a=INTEGER, b=STRING), [{"a": 1, "b": "x"}], [{"a": 1}]),
    Case("optional", {**record(a=INTEGER), "required": []}, [{}, {"a": 1}], [{"b": 1}]),
    Case("required, undeclared", {"type": "object", "required": ["a"]}, [{"a": 1}], [{}, {"b": 1}]),
    Case("nested", record(o=record(p={"type": "array", "items": record(q=STRING)})),
         [{"o": {"p": [{"q": "x"}]}}], [{"o": {"p": [{}]}}]),
    Case("minItems, maxItems", {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 3},
         [[1, 2]], [[1], [1, 2, 3, 4]]),
    Case("pattern", {**STRING, "pattern": "^[A-Z]{2}-\\d+$"}, ["AB-12"], ["ab-1"]),
    Case("pattern, unanchored", {**STRING, "pattern": "b+"}, ["abc"], ["ac"]),
    Case("pattern with a quote", {**STRING, "pattern": '^"\\\\$'}, ['"\\'], ["a"]),
    Case("pattern and maxLength", {**STRING, "pattern": "^a+$", "maxLength": 2}, ["aa"], ["aaa"]),
    Case("minLength, maxLength", {**STRING, "minLength": 2, "maxLength": 3}, ["中文"], ["a", "abcd"]),
    Case("maxLength, escaped", {**STRING, "maxLength": 2}, ["é\n"], ["a\nb"]),
    Case("integer range", {**INTEGER, "minimum": -3, "maximum": 120}, [-3, 120], [-4, 121, 1.5]),
    Case("exclusive range", {**INTEGER, "exclusiveMinimum": 0, "exclusiveMaximum": 9}, [1, 8], [0, 9]),
    Case("number range", {"type": "number", "minimum": 0, "maximum": 1}, [0.5], [1.5]),
    Case("multipleOf", {**INTEGER, "multipleOf": 5}, [10], [3]),
    Case("anyOf", {"anyOf": [STRING, INTEGER]}, ["a", 1], [None]),
    Case("anyOf by a tag",
         {"anyOf": [record(k={"const": "a"}, x=INTEGER), record(k={"const": "b"}, x=STRING)]},
         [{"k": "a", "x": 1}], [{"k": "a", "x": "s"}]),
    Case("oneOf, overlapping", {"oneOf": [{**INTEGER, "minimum": 0}, {**INTEGER, "maximum": 10}]}, [11], [5]),
    Case("allOf", {"allOf": [{**INTEGER, "minimum": 3}, {"maximum": 5}]}, [4], [2, 6]),
    Case("$ref, recursive", {"$defs": {"n": NODE}, "$ref": "#/$defs/n"}, [{"v": 1, "c": [{"v": 2, "c": []}]}],
         [{"v": 1, "c": [{}]}]),
    Case("$ref with siblings", {"$defs": {"s": STRING}, "$ref": "#/$defs/s", "maxLength": 2},
         ["ab"], ["abc"]),
    Case("patternProperties", {"type": "object", "patternProperties": {"^x_": INTEGER},
         "additionalProperties": False}, [{"x_a": 1}], [{"y": 1}]),
    Case("format date", {**STRING, "format": "date"}, ["2024-02-28"], ["2024-13-01"]),
    Case("format unknown", {**STRING, "format": "zip"}, [], ["any text"]),
    Case("uniqueItems", {"type": "array", "items": INTEGER, "uniqueItems": True}, [[1, 2]], [[1, 1]]),
    Case("not", {"not": STRING}, [1], ["a"]),
    Case("if, then", {"if": {"type": "integer"}, "then": {"minimum": 3}}, [4], [1]),
    Case("dependentRequired", {"type": "object", "dependentRequired": {"a": ["b"]}}, [{"b": 1}], [{"a": 1}]),
    Case("look-ahead", {**STRING, "pattern": "^(?=a).b$"}, ["ab"], ["cb"]),
]  # fmt: skip

SMALL = record(title=STRING, pages=INTEGER, kind={"enum": ["book", "article"]})
SMALL_ANSWER = {"title": "Calculus for the 光学 student", "pages": 812, "kind": "book"}

PART = record(
    name={**STRING, "maxLength": 20},
    sizes={"type": "array", "items": {**INTEGER, "minimum": 0, "maximum": 9999}},
    kind={"enum": ["left", "right"]},
    note={"anyOf": [STRING, {"type": "null"}]},
)
PART_ANSWER = {"name": "wheel", "sizes": [12, 480], "kind": "left", "note": None}
LARGE = record(**{f"part_{index}": PART for index in range(100)})
LARGE_ANSWER = {f"part_{index}": PART_ANSWER for index in range(100)}
