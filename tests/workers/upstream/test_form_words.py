import json

import pytest

from contract import CannotDo, ChatMessage, Choices, ChooseRows, Ebnf, JsonObject, JsonSchema, Regex
from workers.upstream.form_words import compiled, fitted, in_words, with_words
from workers.upstream.kinds import KINDS, PLAIN, rows_schema

SCHEMA = JsonSchema(
    json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
)
ROWS = ChooseRows(("光学", 'a "b"', "x"), 2, none_allowed=False)
FORMS = (SCHEMA, JsonObject(), Regex("[ab]+"), Ebnf('root ::= "x" | "y"'), Choices(("yes", "no")), ROWS)


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ('{"a": 5}', SCHEMA, '{"a": 5}'),
        (' {\n"a":5 }\n', SCHEMA, '{"a": 5}'),
        ('```json\n{"a": 5}\n```', SCHEMA, '{"a": 5}'),
        ('{"b": [1, null]}', JsonObject(), '{"b": [1, null]}'),
        ("abba\n", Regex("[ab]+"), "abba"),
        ("y", Ebnf('root ::= "x" | "y"'), "y"),
        ("yes", Choices(("yes", "no")), "yes"),
        ('{"1":"x", "2":"光学"}', ROWS, '{"1": "x", "2": "光学"}'),
        ('{"1": "a \\"b\\""}', ROWS, '{"1": "a \\"b\\""}'),
        ("{}", ChooseRows(("x",), 1), "{}"),
        ("{}", ChooseRows((), 1), "{}"),
    ],
)
def test_a_right_answer_is_taken_without_what_is_around_it(text, form, expected):
    assert fitted(text, form) == expected


@pytest.mark.parametrize(
    ("text", "form", "complaint"),
    [
        ("the answer is 5", SCHEMA, "not JSON"),
        ("[" * 100_000, SCHEMA, "not JSON"),
        ('{"a": "5"}', SCHEMA, "not right from"),
        ("{}", SCHEMA, "not right from"),
        ("[1]", JsonObject(), "not right from"),
        ("abc", Regex("[ab]+"), "not right from 'c' on"),
        ("", Regex("[ab]+"), "not whole"),
        ("maybe", Choices(("yes", "no")), "not right from"),
        ("ye", Choices(("yes", "no")), "not whole"),
        ('{"1": "y"}', ROWS, '"y" is not one of the texts'),
        ('{"1": ["x"]}', ROWS, "is not one of the texts"),
        ('{"1": "x", "2": "x"}', ROWS, "twice"),
        ('{"1": "x", "2": "光学", "3": "a \\"b\\""}', ROWS, "holds 3 texts, more than 2"),
        ("{}", ROWS, "at least one"),
        ("[]", ROWS, "not a JSON object"),
        ('{"2": "x"}', ROWS, "not right from"),
        ('{"one": "x"}', ROWS, "not right from"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(text, form, complaint):
    with pytest.raises(ValueError) as wrong:
        fitted(text, form)
    assert complaint in str(wrong.value)
    assert len(str(wrong.value)) < 200


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_words_ask_for_every_form_behind_the_last_question(form):
    first, last = with_words([ChatMessage("system", "be kind"), ChatMessage("user", "hi")], form)
    assert first.content == "be kind"
    assert last.content == f"hi\n\n{in_words(form)}"


def test_a_form_that_is_wrong_is_refused_before_anybody_is_asked():
    for form in (Regex("("), JsonSchema("{"), Choices(()), Ebnf("root ::= missing")):
        with pytest.raises(CannotDo, match=r"^form: "):
            compiled(form)


def test_servers_are_told_forms_in_their_own_words():
    vllm, llama, sglang = KINDS["vllm"], KINDS["llamacpp"], KINDS["sglang"]
    schema = json.loads(SCHEMA.schema)
    assert vllm.native_form(SCHEMA) == {"structured_outputs": {"json": schema}}
    assert vllm.native_form(Regex("a")) == {"structured_outputs": {"regex": "a"}}
    assert vllm.native_form(Choices(("a",))) == {"structured_outputs": {"choice": ["a"]}}
    assert vllm.native_form(JsonObject()) == {"structured_outputs": {"json_object": True}}
    assert llama.native_form(Choices(('a"', "b"))) == {"grammar": 'root ::= "a\\"" | "b"'}
    assert llama.native_form(JsonObject()) == {"response_format": {"type": "json_object"}}
    assert sglang.native_form(Regex("a")) == {"regex": "a"}
    assert PLAIN.native_form(SCHEMA) == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    }
    assert PLAIN.native_form(Regex("a")) is None
    assert PLAIN.native_form(Choices(("a",))) is None


def test_a_choice_of_rows_is_a_schema_up_to_a_length():
    assert rows_schema(ROWS)["properties"]["2"]["enum"] == list(ROWS.values)
    assert rows_schema(ROWS)["required"] == ["1"]
    assert rows_schema(ChooseRows(("x",), 9))["required"] == []
    assert "3" not in rows_schema(ROWS)["properties"]
    many = ChooseRows(tuple(f"row {number} {'x' * 90}" for number in range(3000)), 5)
    assert PLAIN.native_form(many) is None
    assert PLAIN.native_form(ROWS) is not None
