import numpy as np
import pytest

from contract import PredictOption
from grammar import compile_grammar, last_option
from grammar.options import LEAD_IN, LEAD_TOKENS
from tests.grammar.walking import ids_of

OPTIONS = ("A", "B", "C", "D")


@pytest.fixture
def grammar(vocabulary):
    return compile_grammar(PredictOption(OPTIONS), vocabulary)


def say(constraint, vocabulary, text):
    for token in vocabulary.spell(text):
        constraint.advance(token)
    return constraint


@pytest.mark.parametrize("lead", ["", "答案是", "（", " ", "x = 5, "])
def test_an_answer_ends_with_its_option(grammar, vocabulary, lead):
    constraint = say(grammar.start(), vocabulary, lead)
    assert not constraint.is_finished
    assert not constraint.may_end
    constraint.advance(grammar.spellings[0])
    assert constraint.is_finished
    assert constraint.may_end
    assert constraint.allowed() == constraint.take_forced() == []


def test_until_then_anything_that_is_text_may_be_said(grammar, vocabulary):
    allowed = ids_of(grammar.start().allowed())
    assert allowed == [id_ for id_, token in enumerate(vocabulary.tokens) if token]


def test_a_letter_inside_a_word_is_no_option(grammar, vocabulary):
    bytes_of = {token: id_ for id_, token in enumerate(vocabulary.tokens) if token}
    constraint = grammar.start()
    for letter in (b"x", b"A"):
        constraint.advance(bytes_of[letter])
    assert not constraint.is_finished


def test_what_tells_an_option_holds_nothing_else_but_punctuation(grammar, vocabulary):
    told = {vocabulary.tokens[id_].decode() for id_ in grammar.telling}
    assert {"A", "B", "C", "D"} <= told
    assert not told & {"°C", "A股", "维生素C", " Dé", "AB", "_A", "A1"}
    assert {text.strip(" \t\n:：(（[【\"'“‘*.。,，、)）]】”’") for text in told} == set(OPTIONS)


def words(constraint, vocabulary, count):
    """Say so many tokens that tell nothing."""
    (dot,) = vocabulary.spell(".")
    for _ in range(count):
        constraint.advance(dot)


def test_a_model_that_does_not_get_there_is_led_there(grammar, vocabulary):
    constraint = grammar.start()
    words(constraint, vocabulary, LEAD_TOKENS - 1)
    assert constraint.take_forced() == []
    assert isinstance(constraint.allowed(), np.ndarray)
    words(constraint, vocabulary, 1)
    assert vocabulary.bytes_of(constraint.take_forced()).decode() == LEAD_IN
    assert constraint.take_forced() == []
    said = {vocabulary.tokens[id_].decode() for id_ in constraint.allowed()}
    assert {"A", "B", "C", "D"} <= said <= {"A", "B", "C", "D", " A", " B", " C", " D"}
    (dot,) = vocabulary.spell(".")
    with pytest.raises(ValueError, match="not allowed"):
        constraint.advance(dot)
    constraint.advance(grammar.spellings[-1])
    assert constraint.is_finished


def test_it_is_led_there_token_by_token_where_nothing_is_forced(grammar, vocabulary):
    constraint = grammar.start()
    words(constraint, vocabulary, LEAD_TOKENS)
    said = []
    while len(allowed := constraint.allowed()) == 1:
        said += allowed
        constraint.advance(allowed[0])
    assert vocabulary.bytes_of(said).decode() == LEAD_IN
    assert constraint.allowed() == grammar.spellings
    assert not constraint.is_finished


def test_a_special_token_is_not_said(grammar, vocabulary):
    for id_ in [id_ for id_, token in enumerate(vocabulary.tokens) if token is None][:5]:
        with pytest.raises(ValueError, match="not allowed"):
            grammar.start().advance(id_)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "at least one"),
        (("A", "A"), "twice"),
        (("A", "["), "not made of ASCII"),
        (("A", ""), "not made of ASCII"),
        (("A", "答"), "not made of ASCII"),
        (("A", "Qzqzqz"), "no token that is 'Qzqzqz'"),
    ],
)
def test_options_that_cannot_be_told_are_refused(vocabulary, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        compile_grammar(PredictOption(options), vocabulary)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("A", "A"),
        (" B", "B"),
        ("答案是C", "C"),
        ("A股…答案：（D）.", "D"),
        ("An answer", None),
        ("", None),
    ],
)
def test_a_whole_answer_comes_down_to_its_last_option(text, option):
    assert last_option(text, OPTIONS) == option
