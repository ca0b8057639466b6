"""Answers under a constraint: whole, cheap, and ended where they must be."""

import json

import pytest

from contract import CannotDo, ChooseRows, Sampling
from grammar import Vocabulary
from tests.catalogue import BOOKS
from tests.engine.parts import (
    GREEDY,
    VOCABULARY,
    CountingExecutor,
    answers_together,
    prompts,
    read,
    running_engine,
)

FORM = ChooseRows(BOOKS, 5)


def test_forced_tokens_are_computed_together_with_the_next_choice():
    executor = CountingExecutor(cache_blocks=400)
    with running_engine(executor, context_tokens=1024, step_tokens=1024) as engine:
        answer = read(engine.generate([1, 2, 3], Sampling(temperature=1, seed=5), FORM))
    picked = json.loads(answer.text)
    assert set(picked.values()) <= set(BOOKS)
    usage = answer.completion.usage
    assert usage.steps == len(executor.batches)
    assert usage.completion_tokens == len(answer.ids) > 3 * usage.steps
    assert answer.completion.reason == "stop"
    # Every row is a token once; what was forced behind the last choice needs no computing.
    rows = sum(len(batch.tokens) for batch in executor.batches)
    computed = [token for batch in executor.batches for token in batch.tokens]
    assert computed == [1, 2, 3, *answer.ids][:rows]
    assert [len(batch.logit_rows) for batch in executor.batches] == [1] * usage.steps


@pytest.mark.parametrize(
    "form", [FORM, ChooseRows(BOOKS, 25, none_allowed=False), ChooseRows(("a", "ab", "abc"), 2)]
)
def test_constrained_answers_are_whole_in_a_full_batch(executor_of, form):
    with running_engine(executor_of("Glm", most_tokens=6000), capacity=8, context_tokens=2048) as engine:
        tasks = [
            (prompt, Sampling(temperature=2, seed=place), form) for place, prompt in enumerate(prompts()[:8])
        ]
        together = answers_together(engine, tasks)
        alone = read(engine.generate(*tasks[3]))
    for answer in together:
        values = list(json.loads(answer.text).values())
        assert set(values) <= set(form.values)
        assert len(set(values)) == len(values) <= form.at_most
    assert alone.ids == together[3].ids


def test_constrained_answers_survive_being_set_back(executor_of):
    executor = executor_of("Llama", most_tokens=512)
    form = ChooseRows(("alpha", "alpine", "beta", "bet", "gamma"), 5, none_allowed=False)
    tasks = [
        (prompt, Sampling(temperature=2, seed=place), form) for place, prompt in enumerate(prompts()[:12])
    ]
    with running_engine(executor, capacity=12, context_tokens=256) as engine:
        small = answers_together(engine, tasks)
    with running_engine(executor_of("Llama"), capacity=12, context_tokens=256) as engine:
        large = answers_together(engine, tasks)
    assert [answer.ids for answer in small] == [answer.ids for answer in large]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (ChooseRows((), 3), "{}"),
        (ChooseRows((), 3, none_allowed=False), "{}"),
        (ChooseRows(("only",), 3, none_allowed=False), '{"1": "only"}'),
    ],
)
def test_an_answer_without_a_choice_needs_no_step(form, text):
    executor = CountingExecutor()
    with running_engine(executor) as engine:
        answer = read(engine.generate([1, 2], GREEDY, form))
    assert (answer.text, answer.completion.reason) == (text, "stop")
    assert (answer.completion.usage.steps, executor.batches) == (0, [])


@pytest.mark.parametrize("max_tokens", [1, 3, 7, 30])
def test_forced_tokens_end_where_the_answer_must(max_tokens):
    with running_engine(CountingExecutor(), context_tokens=100) as engine:
        sampling = Sampling(temperature=0, max_tokens=max_tokens)
        answer = read(engine.generate([1] * 60, sampling, ChooseRows(("x" * 100, "x" * 50 + "y"), 2, False)))
    assert (len(answer.ids), answer.completion.reason) == (max_tokens, "length")
    assert ('{"1": "' + "x" * 100).startswith(answer.text)


@pytest.mark.parametrize("prompt_tokens", [1, 40, 58, 59])
def test_forced_tokens_never_outgrow_the_context(prompt_tokens):
    with running_engine(CountingExecutor(cache_blocks=15, block_tokens=4), context_tokens=1000) as engine:
        form = ChooseRows(("x" * 100, "y" * 100), 2)
        answer = read(engine.generate([1] * prompt_tokens, Sampling(temperature=1, seed=1), form))
    if answer.text == "{}":
        assert answer.completion.reason == "stop"
    else:
        assert (len(answer.ids), answer.completion.reason) == (60 - prompt_tokens, "length")


def test_an_answer_that_just_fits_is_whole():
    form = ChooseRows(("only",), 1, none_allowed=False)
    text = '{"1": "only"}'
    with running_engine(CountingExecutor(), context_tokens=100) as engine:
        whole = read(engine.generate([1], Sampling(max_tokens=len(text)), form))
        cut = read(engine.generate([1], Sampling(max_tokens=len(text) - 1), form))
    assert (whole.text, whole.completion.reason) == (text, "stop")
    assert (cut.text, cut.completion.reason) == (text[:-1], "length")


def test_a_form_that_the_vocabulary_cannot_spell_is_refused():
    ascii_only = Vocabulary(VOCABULARY.tokens[:128], lambda _: ())
    with running_engine(CountingExecutor(), vocabulary=ascii_only) as engine:
        for form in (ChooseRows(("数学",), 1), ChooseRows(("a", "a"), 1), ChooseRows(("a",), 0)):
            with pytest.raises(CannotDo):
                next(engine.generate([1], GREEDY, form))
