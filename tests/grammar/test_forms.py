"""Every form: whatever is chosen, the answer is in it; two answers know nothing of each other."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import Choices, ChooseRows, Ebnf, JsonObject, JsonSchema, Regex
from grammar import compile_grammar
from tests import vocabularies
from tests.grammar.walking import ids_of, replay, walk

BOOK = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 8},
        "pages": {"type": "integer", "minimum": 1, "maximum": 3000},
        "tags": {"type": "array", "items": {"enum": ["光学", "law", "x\ny"]}, "minItems": 1, "maxItems": 2},
        "isbn": {"anyOf": [{"type": "string", "pattern": "^\\d{3}-\\d{2}$"}, {"type": "null"}]},
    },
    "required": ["title", "pages", "tags", "isbn"],
    "additionalProperties": False,
}

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "leaf": {"type": "boolean"},
                "below": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1},
            },
            "required": ["leaf"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}

SUM = """
root ::= term ([+*] term)*          # sums and products
term ::= number | "(" space root space ")"
number ::= "0" | [1-9] [0-9]{0,3}
space ::= " "?
"""

CHOICES = ("cat", "category", '"quoted\\"', "两 lines\n", " space")

PATTERNS = [
    r"a+",
    r"(\d{3}-)?\d{2,4}",
    r"[^x\n]{0,6}x",
    r"(cat|dog)s?",
    r"\w+@\w{1,3}\.com",
    r".{3}",
    r"(?s:.)?yes|no",
    "",
]


def is_sum(text):
    return re.fullmatch(r"[0-9+*() ]+", text) is not None and eval(text.replace(" ", "")) >= 0


#: name → a form, and what a whole answer's text must fulfil.
FORMS = {
    "book": (JsonSchema(json.dumps(BOOK)), lambda text: jsonschema.validate(json.loads(text), BOOK) is None),
    "tree": (JsonSchema(json.dumps(TREE)), lambda text: jsonschema.validate(json.loads(text), TREE) is None),
    "anything": (JsonSchema("{}"), lambda text: json.loads(text) is not Ellipsis),
    "object": (JsonObject(), lambda text: isinstance(json.loads(text), dict)),
    "sum": (Ebnf(SUM), is_sum),
    "choices": (Choices(CHOICES), CHOICES.__contains__),
    "rows": (ChooseRows(("alpha", "alpine", "β"), 2), lambda text: isinstance(json.loads(text), dict)),
    **{f"regex {pattern}": (Regex(pattern), re.compile(pattern, re.ASCII).fullmatch) for pattern in PATTERNS},
}

VOCABULARIES = [vocabularies.small, vocabularies.qwen2_5, vocabularies.chatglm3]


@pytest.fixture(scope="module", params=VOCABULARIES, ids=lambda make: make.__name__)
def vocabulary(request):
    return request.param()


@pytest.fixture(scope="module")
def grammars(vocabulary):
    return {name: compile_grammar(form, vocabulary) for name, (form, _) in FORMS.items()}


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(list(FORMS)), seed=st.integers(0, 1 << 30), is_forcing=st.booleans())
def test_every_random_walk_that_ends_is_in_its_form(vocabulary, grammars, name, seed, is_forcing):
    answer = walk(grammars[name].start(), seed, is_forcing=is_forcing)
    if answer.is_whole:
        assert FORMS[name][1](vocabulary.bytes_of(answer.ids).decode())


@pytest.mark.parametrize("name", ["book", "choices", "rows", r"regex (\d{3}-)?\d{2,4}"])
def test_bounded_forms_end_by_themselves(vocabulary, grammars, name):
    for seed in range(5):
        answer = walk(grammars[name].start(), seed, end_chance=0)
        assert answer.is_whole
        assert FORMS[name][1](vocabulary.bytes_of(answer.ids).decode())


def test_every_choice_is_reached(vocabulary, grammars):
    texts = {
        vocabulary.bytes_of(walk(grammars["choices"].start(), seed, end_chance=0.5).ids).decode()
        for seed in range(40)
    }
    assert texts == set(CHOICES)


@settings(deadline=None, max_examples=10)
@given(name=st.sampled_from(list(FORMS)), seed=st.integers(0, 1 << 30))
def test_the_state_follows_from_the_ids_alone(grammars, name, seed):
    grammar = grammars[name]
    first, second = grammar.start(), grammar.start()
    answer = walk(first, seed, most_tokens=20, end_chance=0)
    assert walk(second, seed, most_tokens=20, end_chance=0) == answer
    again = replay(grammar, answer.ids)
    first.prepare()
    again.prepare()
    assert (again.is_finished, again.may_end) == (first.is_finished, first.may_end)
    assert ids_of(again.allowed()) == ids_of(first.allowed())


@settings(deadline=None, max_examples=10)
@given(names=st.tuples(*[st.sampled_from(list(FORMS))] * 2), seed=st.integers(0, 1 << 30))
def test_answers_made_at_the_same_time_do_not_meet(grammars, names, seed):
    alone = [walk(grammars[name].start(), seed, most_tokens=12) for name in names]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda name: walk(grammars[name].start(), seed, most_tokens=12), names))
    assert together == alone


@pytest.mark.parametrize("name", FORMS)
def test_a_token_that_is_not_allowed_raises_and_changes_nothing(vocabulary, grammars, name):
    constraint = grammars[name].start()
    allowed = ids_of(constraint.allowed())
    strangers = sorted(set(range(len(vocabulary) + 3)) - set(allowed))
    for id_ in [-1, *strangers[:5], *strangers[-5:]]:
        with pytest.raises(ValueError, match="not allowed"):
            constraint.advance(id_)
        assert ids_of(constraint.allowed()) == allowed


@pytest.mark.parametrize("name", FORMS)
def test_ids_that_stand_for_no_text_are_never_allowed(vocabulary, grammars, name):
    silent = {id_ for id_, token in enumerate(vocabulary.tokens) if not token}
    constraint = grammars[name].start()
    for id_ in walk(grammars[name].start(), 3, is_forcing=False, most_tokens=10).ids:
        assert not silent & set(ids_of(constraint.allowed()))
        constraint.advance(id_)


def test_what_is_given_is_forced(vocabulary, grammars):
    constraint = grammars["book"].start()
    assert vocabulary.bytes_of(constraint.take_forced()).startswith(b'{"title":')
    schema = {"const": {"answer": "There is nothing to choose here, 真的."}}
    constraint = compile_grammar(JsonSchema(json.dumps(schema)), vocabulary).start()
    assert json.loads(vocabulary.bytes_of(constraint.take_forced())) == schema["const"]
    assert constraint.is_finished


def test_where_more_may_follow_the_end_is_a_choice():
    constraint = compile_grammar(Choices(("cat", "category")), vocabularies.small()).start()
    assert constraint.take_forced() == list(b"cat")
    assert constraint.may_end
    assert not constraint.is_finished
    assert ids_of(constraint.allowed()) == [ord("e")]


def test_equal_tokens_are_allowed_together():
    vocabulary = vocabularies.chatglm3()
    same = [id_ for id_, token in enumerate(vocabulary.tokens) if token == b"a"]
    assert len(same) > 1
    constraint = compile_grammar(Regex("[ab]"), vocabulary).start()
    assert set(same) < set(ids_of(constraint.allowed()))


def test_few_ids_are_listed_and_many_are_masked():
    vocabulary = vocabularies.qwen2_5()
    assert isinstance(compile_grammar(Regex("[ab]"), vocabulary).start().allowed(), list)
    mask = compile_grammar(Regex("(?s:.)*"), vocabulary).start().allowed()
    assert mask.dtype == bool
    assert mask.shape == (len(vocabulary),)


def test_a_vocabulary_that_lacks_a_byte_is_refused():
    poor = type(vocabularies.small())(vocabularies.small().tokens[1:], lambda _: ())
    with pytest.raises(ValueError, match="no token for the byte 0x00"):
        compile_grammar(JsonObject(), poor)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [((), "at least one"), (("a", ""), "empty"), (("x" * 200_000,), "200000 bytes are more than")],
)
def test_choices_that_cannot_be(texts, complaint):
    with pytest.raises(ValueError, match=complaint):
        compile_grammar(Choices(texts), vocabularies.small())
