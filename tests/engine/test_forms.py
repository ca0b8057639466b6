"""Answers in a form, through the engine: whatever a mindless model wants, the form is kept."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest
import torch

from contract import CannotDo, Choices, ChooseRows, Ebnf, JsonObject, JsonSchema, Regex, Sampling
from engine.sampler import choose
from grammar import compile_grammar
from tests.engine.parts import (
    VOCABULARY,
    VOCABULARY_SIZE,
    CountingExecutor,
    read,
    running_engine,
    sequence_of,
    torch_executor,
)

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
        "kind": {"enum": ["book", "光学"]},
    },
    "required": ["name", "sizes", "kind"],
    "additionalProperties": False,
}

FORM = JsonSchema(json.dumps(SCHEMA))

#: An id that stands for no text, and ends answers.
END = 260


@pytest.fixture(scope="module")
def engine():
    with running_engine(torch_executor(), end_ids=frozenset([END])) as engine:
        yield engine


def wild(seed, **settings):
    return Sampling(temperature=1.5, seed=seed, **{"max_tokens": 150} | settings)


def test_json_at_a_high_temperature_is_valid_to_the_last_character(engine):
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda seed: read(engine.generate([5, seed], wild(seed), FORM)), range(16))
        )
    assert {answer.completion.reason for answer in answers} == {"stop"}
    for answer in answers:
        jsonschema.validate(json.loads(answer.text), SCHEMA)
    assert len({answer.text for answer in answers}) > 8


def test_a_limit_cuts_an_answer_off(engine):
    answer = read(engine.generate([5], wild(1, max_tokens=5), FORM))
    assert answer.completion.reason == "length"
    assert answer.completion.usage.completion_tokens == len(answer.ids) == 5
    assert answer.text == '{"nam'


@pytest.mark.parametrize(
    ("form", "is_in_form"),
    [
        (Regex(r"[a-c]+-\d{2}"), re.compile(r"[a-c]+-\d{2}").fullmatch),
        (Ebnf('root ::= "<" root ">" | "x"'), re.compile(r"(<)*x(>)*").fullmatch),
        (Choices(("cat", "category", " dog")), ("cat", "category", " dog").__contains__),
        (ChooseRows(("光学", "a\nb"), 2), json.loads),
        (JsonObject(), json.loads),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_form_is_kept(engine, form, is_in_form):
    for seed in range(4):
        answer = read(engine.generate([7], wild(seed), form))
        if answer.completion.reason == "stop":
            assert is_in_form(answer.text)
        else:
            assert len(answer.ids) == 150


def test_an_answer_ends_where_it_may_if_the_model_says_so():
    executor = CountingExecutor()
    with running_engine(executor, end_ids=frozenset([ord("b")])) as engine:
        answer = read(engine.generate([ord("0")], Sampling(temperature=0), Regex("a+|c")))
    assert answer.text == "a"
    assert answer.completion.reason == "stop"


def test_an_answer_may_not_end_before_it_is_whole(engine):
    logits = torch.full((1, VOCABULARY_SIZE), -5.0)
    logits[0, END] = 9.0
    sequence = sequence_of([1], constraint=compile_grammar(Regex("[ab]{2}c*"), VOCABULARY).start())
    sequence.end_ids = frozenset([END])
    assert choose(logits, [sequence])[0].token != END
    assert sequence.accept(ord("a")) is None
    assert choose(logits, [sequence])[0].token != END
    assert sequence.accept(ord("b")) is None
    assert choose(logits, [sequence])[0].token == END
    assert sequence.accept(END) == "stop"


@pytest.mark.parametrize("pattern", ["[ab]", "[^a]", "(?s:.)"])
def test_few_and_many_allowed_ids_are_sampled_alike(pattern):
    torch.manual_seed(3)
    logits = torch.randn(1, VOCABULARY_SIZE)
    constraint = compile_grammar(Regex(pattern), VOCABULARY).start()
    listed = constraint.allowed()
    mask = torch.zeros(VOCABULARY_SIZE, dtype=torch.bool)
    mask[listed] = True
    for seed in range(20):
        sampling = Sampling(temperature=1.3, top_p=0.9, top_k=40, seed=seed)
        sequence = sequence_of([1], sampling=sampling, seed=seed, constraint=constraint)
        chosen = choose(logits, [sequence])
        constraint._allowed = mask.numpy()
        assert choose(logits, [sequence]) == chosen
        constraint._allowed = listed


def test_equal_seeds_give_equal_answers(engine):
    texts = {read(engine.generate([9], wild(4), FORM)).text for _ in range(3)}
    assert len(texts) == 1


def test_what_is_given_costs_no_steps(engine):
    const = JsonSchema(json.dumps({"const": {"a": "long, but without any choice"}}))
    answer = read(engine.generate([5], wild(1), const))
    assert answer.completion.usage.steps == 0
    assert json.loads(answer.text) == {"a": "long, but without any choice"}
    answer = read(engine.generate([5], wild(2), FORM))
    assert answer.completion.usage.steps < len(answer.ids)


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        (JsonSchema('{"uniqueItems": true}'), "schema.uniqueItems: this keyword is not supported"),
        (JsonSchema("{"), "not JSON"),
        (Regex("("), "unclosed"),
        (Ebnf("root ::= x"), "x, which is not defined"),
        (Choices(()), "at least one"),
        (ChooseRows(("a", "a"), 1), "distinct"),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused_before_anything_is_computed(engine, form, complaint):
    with pytest.raises(CannotDo, match=complaint):
        read(engine.generate([5], wild(1), form))


def test_an_answer_that_gets_stuck_ends_alone(engine):
    stuck = {"properties": {"b": {"type": "boolean"}, "a": {"pattern": "^\\x01$", "type": "string"}}}
    form = JsonSchema(json.dumps({"type": "object", "required": ["b", "a"], **stuck}))
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(lambda: read(engine.generate([3], wild(8), FORM)))
        with pytest.raises(CannotDo, match="nothing can be said"):
            read(engine.generate([5], wild(1), form))
    jsonschema.validate(json.loads(other.result().text), SCHEMA)


def test_a_grammar_is_compiled_once(engine):
    compiled = engine._grammar(FORM)
    assert engine._grammar(JsonSchema(json.dumps(SCHEMA))) is compiled
