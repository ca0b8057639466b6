"""Answers made of rows: whatever is chosen, the answer is whole, true and in order."""

import itertools
import json
import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import ChooseRows
from grammar import RowsGrammar, Vocabulary
from tests.catalogue import BOOKS, CALCULUS
from tests.properties import examples

#: Characters that a JSON string, a tokenizer or a careless join may trip over.
HOSTILE = st.sampled_from(
    [*"ab \"\\{},:1'/\n\t\r\0\x1f\x7f\u2028é中😀\ufeff\u200d▁", ' "2": "', "<|user|>", "null"]
)
TITLES = st.lists(HOSTILE, max_size=6).map("".join)


@st.composite
def forms(draw, most_values=6):
    """Catalogues in which some titles are the beginning of others."""
    values = draw(st.lists(TITLES, max_size=most_values, unique=True))
    values += [value + draw(TITLES) for value in values[: draw(st.integers(0, 2))]]
    values = list(dict.fromkeys(values))[:most_values]
    at_most = draw(st.integers(1, len(values) + 2))
    return ChooseRows(tuple(values), at_most, draw(st.booleans()))


def walk(constraint, choose, *, is_forcing):
    """Choose until the answer is whole; return its ids and how often there was something to choose."""
    ids = constraint.take_forced() if is_forcing else []
    choices = 0
    while not constraint.is_finished:
        allowed = constraint.allowed()
        assert allowed
        assert len(set(allowed)) == len(allowed)
        assert not is_forcing or len(allowed) > 1
        choices += 1
        ids.append(choose(allowed))
        constraint.advance(ids[-1])
        ids += constraint.take_forced() if is_forcing else []
    assert list(constraint.allowed()) == []
    assert constraint.take_forced() == []
    return ids, choices


def every_answer(grammar, vocabulary, *, is_forcing):
    """Return every text that can be reached."""
    texts = []
    beginnings = [[]]
    while beginnings:
        ids = beginnings.pop()
        constraint = replay(grammar, ids)
        ids = ids + (constraint.take_forced() if is_forcing else [])
        if constraint.is_finished:
            texts.append(vocabulary.bytes_of(ids).decode())
        beginnings += [[*ids, id_] for id_ in constraint.allowed()]
    return texts


def replay(grammar, ids):
    constraint = grammar.start()
    for id_ in ids:
        constraint.advance(id_)
    return constraint


def spelled(values):
    return json.dumps({str(place): value for place, value in enumerate(values, 1)}, ensure_ascii=False)


@examples(80)
@given(form=forms(), seed=st.integers(0, 1 << 30), is_forcing=st.booleans())
def test_every_random_walk_ends_in_distinct_values_under_numbered_keys(vocabulary, form, seed, is_forcing):
    constraint = RowsGrammar(form, vocabulary).start()
    ids, _ = walk(constraint, random.Random(seed).choice, is_forcing=is_forcing)
    text = vocabulary.bytes_of(ids).decode()
    pairs = json.loads(text, object_pairs_hook=list)
    values = [value for _, value in pairs]
    assert [key for key, _ in pairs] == [str(number) for number in range(1, len(pairs) + 1)]
    assert set(values) <= set(form.values)
    assert len(set(values)) == len(values) <= form.at_most
    assert values or form.none_allowed or not form.values
    assert [form.values[index] for index in constraint.picked] == values
    assert text == spelled(values)


@examples(15)
@given(form=forms(most_values=3), is_forcing=st.booleans())
def test_every_subset_is_reachable_in_every_order_once(vocabulary, form, is_forcing):
    sizes = range(1, min(form.at_most, len(form.values)) + 1)
    wanted = [spelled(picked) for size in sizes for picked in itertools.permutations(form.values, size)]
    wanted += ["{}"] if form.none_allowed or not form.values else []
    reached = every_answer(RowsGrammar(form, vocabulary), vocabulary, is_forcing=is_forcing)
    assert sorted(reached) == sorted(wanted)


@examples(30)
@given(form=forms(), seed=st.integers(0, 1 << 30))
def test_a_token_that_is_not_allowed_raises_and_changes_nothing(vocabulary, form, seed):
    generator = random.Random(seed)
    constraint = RowsGrammar(form, vocabulary).start()
    while not constraint.is_finished:
        allowed = constraint.allowed()
        strangers = [id_ for id_ in range(-1, 300) if id_ not in allowed]
        with pytest.raises(ValueError, match="not allowed"):
            constraint.advance(generator.choice(strangers))
        assert constraint.allowed() == allowed
        constraint.advance(generator.choice(allowed))
    with pytest.raises(ValueError):
        constraint.advance(0)


@examples(30)
@given(form=forms(), seeds=st.lists(st.integers(0, 1 << 30), min_size=2, max_size=4))
def test_answers_over_one_grammar_do_not_know_each_other(vocabulary, form, seeds):
    grammar = RowsGrammar(form, vocabulary)
    alone = [walk(grammar.start(), random.Random(seed).choice, is_forcing=False)[0] for seed in seeds]
    together = [(grammar.start(), random.Random(seed), []) for seed in seeds]
    while not all(constraint.is_finished for constraint, _, _ in together):
        for constraint, generator, ids in together:
            if not constraint.is_finished:
                ids.append(generator.choice(constraint.allowed()))
                constraint.advance(ids[-1])
    assert [ids for _, _, ids in together] == alone


def test_an_answer_of_five_books_costs_at_most_a_third_as_many_choices_as_tokens(vocabulary):
    constraint = RowsGrammar(ChooseRows(BOOKS, 10), vocabulary).start()
    wanted = spelled(CALCULUS).encode()
    said = b""

    def say_what_is_wanted(allowed):
        return next(id_ for id_ in allowed if wanted.startswith(said + vocabulary.bytes_of([id_])))

    ids, choices = constraint.take_forced(), 0
    while not constraint.is_finished:
        said = vocabulary.bytes_of(ids)
        token = say_what_is_wanted(constraint.allowed())
        constraint.advance(token)
        ids += [token, *constraint.take_forced()]
        choices += 1
    assert vocabulary.bytes_of(ids) == wanted
    assert choices * 3 <= len(ids)


def test_no_value_or_only_one_leaves_nothing_to_choose(vocabulary):
    for form, text in [
        (ChooseRows((), 3), "{}"),
        (ChooseRows((), 3, none_allowed=False), "{}"),
        (ChooseRows(("光学",), 3, none_allowed=False), '{"1": "光学"}'),
        (ChooseRows(("",), 1, none_allowed=False), '{"1": ""}'),
    ]:
        constraint = RowsGrammar(form, vocabulary).start()
        assert vocabulary.bytes_of(constraint.take_forced()).decode() == text
        assert constraint.is_finished


def test_a_thousand_values_compile_and_answer_in_well_under_a_second(vocabulary):
    values = tuple(f"{BOOKS[number % len(BOOKS)]}（第{number}卷）" for number in range(1000))
    started = time.thread_time()
    grammar = RowsGrammar(ChooseRows(values, 10), vocabulary)
    ids, _ = walk(grammar.start(), random.Random(1).choice, is_forcing=True)
    assert time.thread_time() - started < 0.6
    assert len(json.loads(vocabulary.bytes_of(ids))) <= 10


def test_a_vocabulary_that_lacks_a_byte_of_a_value_is_refused():
    ascii_only = Vocabulary([bytes([byte]) for byte in range(128)], lambda _: ())
    RowsGrammar(ChooseRows(("algebra",), 1), ascii_only)
    with pytest.raises(ValueError, match=re.escape("0xe4")):
        RowsGrammar(ChooseRows(("algebra", "代数中"), 1), ascii_only)


@pytest.mark.parametrize(
    "form", [ChooseRows(("a", "b", "a"), 2), ChooseRows(("a",), 0), ChooseRows(("a",), -1)]
)
def test_a_form_that_makes_no_sense_is_refused(form, vocabulary):
    with pytest.raises(ValueError):
        RowsGrammar(form, vocabulary)
