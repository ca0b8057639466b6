"""What may not be chosen: what a constraint forbids, and an end that comes too early."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract import ChooseRows, Regex, Sampling, ServingError
from engine.sampler import choose
from grammar import RowsGrammar, compile_grammar
from tests.engine.choosing import (
    END,
    Allowing,
    both_kinds,
    ending_sequence,
    falling,
    masked,
    token_of,
    tokens_of,
)
from tests.engine.parts import VOCABULARY, VOCABULARY_SIZE, sequence_of
from tests.properties import examples


@both_kinds
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_constraint_that_leaves_no_number_fails_its_row(kind, temperature):
    logits = torch.zeros(1, VOCABULARY_SIZE)
    logits[0, [4, 5]] = -torch.inf
    sequence = sequence_of([1], sampling=Sampling(temperature=temperature), constraint=Allowing(kind([4, 5])))
    assert isinstance(choose(logits, [sequence])[0], ServingError)
    sequence.constraint = Allowing(kind([]))
    assert isinstance(choose(logits, [sequence])[0], ServingError)


@both_kinds
def test_bias_and_penalties_weigh_within_a_constraint(kind):
    def chosen(**options):
        sampling = Sampling(temperature=0, **options)
        return token_of(
            falling(40, 9, 8, 7), sequence_of([9], sampling=sampling, constraint=Allowing(kind([9, 8, 7])))
        )

    assert chosen() == 9
    assert chosen(logit_bias={7: 50.0, 41: 90.0}) == 7
    assert chosen(repetition_penalty=2.0) == 8


@pytest.mark.parametrize("temperature", [0.0, 1e-2])
@pytest.mark.parametrize(
    ("answered", "options", "token"),
    [
        (0, {}, END),
        (2, {"min_tokens": 3}, 7),
        (3, {"min_tokens": 3}, END),
        (3, {"min_tokens": 4, "logit_bias": {END: 100.0}}, 7),
        (99, {"ignore_end": True}, 7),
        (99, {"ignore_end": True, "top_k": 1}, 7),
    ],
)
def test_the_end_is_not_chosen_too_early(temperature, answered, options, token):
    sampling = Sampling(temperature=temperature, **options)
    sequence = ending_sequence([1] * (1 + answered), prompt_tokens=1, sampling=sampling)
    assert token_of(falling(END, 7), sequence) == token


@both_kinds
@pytest.mark.parametrize(
    ("may_end", "options", "token"),
    [
        (False, {}, 8),
        (True, {}, END),
        (True, {"ignore_end": True}, 8),
        (True, {"min_tokens": 1}, 8),
        (True, {"logit_bias": {END: -100.0}}, 8),
    ],
)
def test_under_a_constraint_the_end_may_come_where_both_allow_it(kind, may_end, options, token):
    sampling = Sampling(temperature=0, **options)
    sequence = ending_sequence([1], sampling=sampling, constraint=Allowing(kind([8, 9]), may_end))
    assert token_of(falling(END, 7, 8), sequence) == token


@both_kinds
@pytest.mark.parametrize("options", [{"ignore_end": True}, {"min_tokens": 5}])
@pytest.mark.parametrize("allowed", [[], [END]])
def test_a_constraint_that_can_only_end_wins(kind, options, allowed):
    sampling = Sampling(temperature=0.5, **options)
    sequence = ending_sequence([1], sampling=sampling, constraint=Allowing(kind(allowed), may_end=True))
    assert token_of(falling(7), sequence) == END


def test_a_mask_is_left_as_it_is():
    for is_early in (True, False):
        mask = masked([8, END])
        sampling = Sampling(temperature=0, ignore_end=is_early)
        sequence = ending_sequence([1], sampling=sampling, constraint=Allowing(mask, may_end=True))
        token_of(falling(8), sequence)
        assert np.flatnonzero(mask).tolist() == [8, END]
        mask[END] = False
        token_of(falling(8), sequence)
        assert np.flatnonzero(mask).tolist() == [8]


def test_a_pattern_goes_on_for_as_long_as_it_is_asked_to():
    constraint = compile_grammar(Regex("a{2,9}"), VOCABULARY).start()
    sequence = ending_sequence([1], sampling=Sampling(temperature=0, min_tokens=6), constraint=constraint)
    ending = sequence.begin()
    while ending is None:
        ending = sequence.accept(token_of(falling(END, 7), sequence))
    assert ending == "stop"
    assert bytes(sequence.tokens[1:]) == b"aaaaaa"


def test_ids_without_a_logit_are_never_chosen():
    few = [0.0, 1.0, 2.0]
    for sampling in (Sampling(temperature=0), Sampling(temperature=0, ignore_end=True, logit_bias={90: 50})):
        for allowed in ([1, 90], masked([1, 90])):
            sequence = ending_sequence([0], sampling=sampling, constraint=Allowing(allowed, may_end=True))
            assert token_of(few, sequence) == 1
        assert token_of(few, ending_sequence([0], sampling=sampling)) == 2


@both_kinds
@pytest.mark.parametrize("options", [{}, {"top_p": 0.8}, {"top_k": 3}, {"min_p": 0.3}])
def test_listed_and_masked_constraints_choose_alike(kind, options):
    ids = [200, 3, 90, 17, 41, 5]
    logits = torch.randn(50, VOCABULARY_SIZE, generator=torch.Generator().manual_seed(4))
    sampling = Sampling(temperature=1, **options)
    sequences = [
        sequence_of([1], sampling=sampling, seed=seed, constraint=Allowing(kind(ids))) for seed in range(50)
    ]
    same = [
        sequence_of([1], sampling=sampling, seed=seed, constraint=Allowing(sorted(ids))) for seed in range(50)
    ]
    tokens = tokens_of(logits, sequences)
    assert tokens == tokens_of(logits, same)
    assert set(tokens) <= set(ids)
    assert len(set(tokens)) > 2


@examples(60)
@given(seed=st.integers(0, 1 << 40), temperature=st.sampled_from([0.0, 0.3, 1.7]), top_k=st.integers(0, 3))
def test_a_constraint_is_never_left(seed, temperature, top_k):
    values = ("ab", "abc", 'a"', "中文", "文")
    sampling = Sampling(temperature=temperature, top_k=top_k, repetition_penalty=1.4, presence_penalty=2)
    constraint = RowsGrammar(ChooseRows(values, 3), VOCABULARY).start()
    sequence = sequence_of([1, 2], sampling=sampling, seed=seed, constraint=constraint)
    sequence.begin()
    generator = torch.Generator().manual_seed(seed)
    while not constraint.is_finished:
        logits = torch.randn(1, VOCABULARY_SIZE, generator=generator) * 9
        sequence.accept(tokens_of(logits, [sequence])[0])
    assert 0 <= len(constraint.picked) <= 3
