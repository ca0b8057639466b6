"""JSON schemas: what is said is kept to the letter, and what cannot be kept is refused by name."""

import json

import jsonschema
import pytest

from contract import JsonSchema
from grammar import compile_grammar
from tests.grammar.walking import accepts
from tests.vocabularies import small

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}

#: schema, values that are valid, values that are not.
KEPT = [
    ({"enum": ["a", 1, None, {"x": [1]}]}, ["a", 1, None, {"x": [1]}], ["b", 2, False]),
    ({"const": {"a": 1.5, "b": 2**53 - 1}}, [{"a": 1.5, "b": 2**53 - 1}], [{"a": 1.5}]),
    (POINT, [{"x": 1}], [{}, {"x": "1"}, {"x": 1, "y": 2}]),
    ({"type": "object", "properties": {"a": {"type": "null"}}}, [{}, {"a": None}, {"b": 1}], [{"a": 1}]),
    ({"type": "object", "required": ["a"]}, [{"a": 1}], [{}, {"b": 1}]),
    ({"type": "object", "additionalProperties": {"type": "boolean"}}, [{"z": True}], [{"z": 2}]),
    ({"type": "object", "minProperties": 1, "maxProperties": 2}, [{"a": 1}], [{}, {"a": 1, "b": 2, "c": 3}]),
    ({"type": "object", "patternProperties": {"^x_": {"type": "integer"}}}, [{"x_a": 1}], [{"x_a": "s"}]),
    ({"type": "array", "items": POINT, "minItems": 1, "maxItems": 2}, [[{"x": 1}]], [[], [{}]]),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, [[1], []], [["a"], [1, 2]]),
    ({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"}, ["AB-12"], ["ab-12", "AB-", "xAB-1"]),
    ({"type": "string", "pattern": "b+"}, ["abc"], ["ac"]),
    ({"type": "string", "pattern": '^"\\\\$'}, ['"\\'], ["a"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "中文é", '"\n'], ["a", "abcd"]),
    ({"type": "string", "pattern": "^a+$", "maxLength": 2}, ["aa"], ["aaa", "b"]),
    ({"type": "string", "format": "date"}, ["2024-02-28"], ["2024-13-01", "x"]),
    ({"type": "integer", "minimum": -3, "maximum": 120}, [-3, 0, 120], [-4, 121, 1.5]),
    ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}, [1, 9], [0, 10]),
    ({"type": "number", "minimum": 0, "maximum": 1}, [0, 0.5, 1], [-0.1, 1.1]),
    ({"type": "integer", "multipleOf": 5}, [0, 10, -5], [3]),
    ({"type": ["string", "null"]}, ["a", None], [1]),
    ({"anyOf": [POINT, {"type": "string"}]}, [{"x": 1}, "a"], [{}, 1]),
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["a", 1], [None]),
    ({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}, [3, 5], [2, 6]),
    ({"$defs": {"p": POINT}, "type": "array", "items": {"$ref": "#/$defs/p"}}, [[{"x": 1}]], [[{}]]),
    ({"$defs": {"a/b~c d": POINT}, "$ref": "#/$defs/a~1b~0c%20d"}, [{"x": 1}], [{}]),
    ({"type": "object", "properties": {"next": {"$ref": "#"}}}, [{"next": {}}], [{"next": 1}]),
    ({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://a/b", "title": "T",
      "description": "D", "default": 3, "examples": [1], "type": "integer"}, [1], ["a"]),
]  # fmt: skip

#: schema, what the refusal says.
REFUSED = [
    ("[1", "schema: not JSON"),
    ("3", "schema: must be a JSON object"),
    ('{"const": NaN}', "NaN is no JSON number"),
    ({"uniqueItems": True}, "schema.uniqueItems: this keyword is not supported"),
    ({"properties": {"a": {"not": {}}}}, "schema.properties.a.not: this keyword is not supported"),
    ({"items": {"anyOf": [{}, {"maxLenght": 3}]}}, "schema.items.anyOf.1.maxLenght: this keyword"),
    ({"$defs": {"unused": {"if": {}}}}, "schema.\\$defs.unused.if: this keyword"),
    ({"properties": {"a": {"$id": "b"}}}, "schema.properties.a.\\$id: this keyword"),
    ({"x-guidance": {"lenient": True}}, "schema.x-guidance: this keyword"),
    ({"items": [{}]}, "schema.items: must be a schema"),
    ({"properties": []}, "schema.properties: must be a JSON object"),
    ({"anyOf": {}}, "schema.anyOf: must be a JSON array"),
    ({"$ref": "https://a/b"}, "schema.\\$ref: must point into the schema itself"),
    ({"$ref": "#/$defs/none"}, "schema.\\$ref: there is no schema at"),
    ({"examples": [{"not": {}}], "$ref": "#/examples/0"}, "there is no schema at #/examples/0"),
    ({"type": "strng"}, "strng"),
    ({"minimum": "3"}, "schema.minimum: must be a number"),
    ({"minimum": True}, "schema.minimum: must be a number"),
    ({"const": -(2**63)}, "numbers beyond 9007199254740991 are not supported"),
    ({"enum": [{"a": [1e300]}]}, "schema.enum: numbers beyond"),
    ({"minLength": -1}, "schema.minLength: must be an integer from 0 to 100000"),
    ({"maxItems": 2.0}, "schema.maxItems: must be an integer"),
    ({"maxLength": 10**9}, "schema.maxLength: must be an integer"),
    ({"minProperties": 2}, "more than one beyond those required is not supported"),
    ({"required": "a"}, "schema.required: must be an array of texts"),
    ({"const": "\x01"}, "schema.const: control and half characters are not supported"),
    ('{"properties": {"\\ud800": {}}}', "schema.properties: control and half characters"),
    ({"format": "zip"}, "schema.format: 'zip' is not supported, only date"),
    ({"type": "string", "pattern": "("}, "unclosed group"),
    ({"pattern": "^(?=a)b"}, r"schema.pattern: the pattern .* has a group '\(\?=a', not supported"),
    ({"type": "string", "pattern": "\\bx"}, "lookarounds not supported"),
    ({"patternProperties": {"[[a]]": {}}}, r"schema.patternProperties: .* write \\\["),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "greater than maximum"),
    ({"enum": []}, "Unsatisfiable"),
    ({"type": "string", "pattern": "^\\x01$"}, "nothing can be said in it"),
    ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, "oneOf is supported only where plainly no two"),
    ({"multipleOf": 1_000_003, "type": "integer"}, "all multipleOf multiplied exceed 10000"),
    ({"allOf": [{"multipleOf": 7919}, {"multipleOf": 0.7907}]}, "all multipleOf multiplied exceed"),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), KEPT, ids=lambda value: json.dumps(value)[:40])
def test_valid_values_are_allowed_and_others_are_not(schema, valid, invalid):
    grammar = compile_grammar(JsonSchema(json.dumps(schema)), small())
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for value in [*valid, *invalid]:
        assert validator.is_valid(value) == (value in valid), value
        assert accepts(grammar, small(), json.dumps(value, ensure_ascii=False)) == (value in valid), value


@pytest.mark.parametrize(("schema", "complaint"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_kept_is_refused_by_name(schema, complaint):
    text = schema if isinstance(schema, str) else json.dumps(schema)
    with pytest.raises(ValueError, match=complaint):
        compile_grammar(JsonSchema(text), small())


@pytest.mark.parametrize(
    "text",
    ['{"x":1}', '{ "x": 1}', '{"x": 1} ', '{"\\u0078": 1}', '{"x": 01}', '{"x": 1, "x": 2}'],
)
def test_a_value_has_one_spelling(text):
    assert not accepts(compile_grammar(JsonSchema(json.dumps(POINT)), small()), small(), text)


def test_properties_come_in_the_order_of_the_schema():
    schema = {"properties": {"b": {"type": "null"}, "a": {"type": "null"}}, "type": "object"}
    grammar = compile_grammar(JsonSchema(json.dumps(schema)), small())
    assert accepts(grammar, small(), '{"b": null, "a": null}')
    assert not accepts(grammar, small(), '{"a": null, "b": null}')
