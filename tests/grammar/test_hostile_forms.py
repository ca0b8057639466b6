"""Forms made to hang a worker or to fill its memory: refused, or kept at a bounded cost."""

import json
import time
from contextlib import suppress

import psutil
import pytest

from contract import Choices, Ebnf, JsonSchema, Regex
from grammar import compile_grammar
from tests.grammar.walking import walk
from tests.vocabularies import small

#: Processor seconds that compiling a form may take, and tokens of an answer in it; measured: 0.6 and 0.1.
COMPILE_SECONDS = 4
WALK_SECONDS = 4

#: Bytes that a form and one answer in it may take; measured: 40 MB.
MOST_BYTES = 300_000_000

DOUBLING = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)} | {
    "d30": {"type": "null"}
}

SCHEMAS = {
    "nesting": '{"items":' * 60 + "{}" + "}" * 60,
    "deep nesting": '{"items":' * 10_000 + "{}" + "}" * 10_000,
    "deep value": '{"const":' + "[" * 900 + "]" * 900 + "}",
    "large": json.dumps({"description": "x" * 200_000}),
    "doubling references": {"$defs": DOUBLING, "$ref": "#/$defs/d0"},
    "product": {"allOf": [{"anyOf": [{"required": [f"p{i}{j}"]} for j in range(6)]} for i in range(12)]},
    "patterns together": {"allOf": [{"type": "string", "pattern": f"x.{{{i}}}y"} for i in range(1, 14)]},
    "patterns side by side": {
        "anyOf": [{"pattern": f"{c}.{{20,40}}{c}", "type": "string"} for c in "abcdefgh"]
    },
    "optional properties": {"type": "object", "properties": {f"p{i}": {} for i in range(1500)}},
    "many values": {"enum": [f"value {i}" for i in range(7000)]},
    "items of items": {"items": {"items": {"minItems": 100_000}, "minItems": 100_000}, "minItems": 100_000},
    "long string": {"type": "string", "minLength": 100_000, "pattern": "^(a|b)*c.{1,5000}$"},
    "remainders": {"type": "integer", "multipleOf": 9973},
    "endless reference": {"$ref": "#"},
    "endless object": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
}

OTHERS = {
    "repetitions": Regex("(a{1000}){1000}"),
    "late repetitions": Regex("x(a{1000}){1000}"),
    "states": Regex("(.*a.{20}){3}"),
    "letters": Regex(r"\p{L}{1,2000}"),
    "nested groups": Regex("(" * 5000 + "a" + ")" * 5000),
    "alternatives": Regex("|".join(f"word{i}" for i in range(10_000))),
    "ambiguous": Ebnf('root ::= s\ns ::= s s | s s s | "a" | ""'),
    "doubling rules": Ebnf(
        'root ::= a0\na40 ::= "x"\n' + "\n".join(f"a{i} ::= a{i + 1} a{i + 1}" for i in range(40))
    ),
    "repeated repetitions": Ebnf('root ::= ((("a"{1000}){1000}){1000}){1000}'),
    "brackets": Ebnf("root ::= " + "(" * 5000 + '"a"' + ")" * 5000),
    "many choices": Choices(tuple(f"choice {i}" for i in range(6000))),
}

FORMS = OTHERS | {
    name: JsonSchema(schema if isinstance(schema, str) else json.dumps(schema))
    for name, schema in SCHEMAS.items()
}


def processor_seconds():
    times = psutil.Process().cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("name", FORMS)
def test_a_hostile_form_costs_little(name):
    before = psutil.Process().memory_info().rss
    started = processor_seconds()
    grammar = None
    with suppress(ValueError):
        grammar = compile_grammar(FORMS[name], small())
    compiled = processor_seconds()
    assert compiled - started < COMPILE_SECONDS
    if grammar is not None:
        with suppress(ValueError):
            walk(grammar.start(), 0, most_tokens=100, end_chance=0)
        assert processor_seconds() - compiled < WALK_SECONDS
    assert psutil.Process().memory_info().rss - before < MOST_BYTES


def test_an_answer_that_takes_too_long_to_keep_is_given_up():
    constraint = compile_grammar(OTHERS["ambiguous"], small()).start()
    started = time.thread_time()
    with pytest.raises(ValueError, match="too much"):
        walk(constraint, 1, most_tokens=100_000, end_chance=0)
    assert time.thread_time() - started < COMPILE_SECONDS + WALK_SECONDS
