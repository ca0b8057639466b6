"""What is told about a token's probability."""

import math

import numpy as np
import pytest

from engine.logprobs import LEAST_LOGPROB, token_logprob
from tests.engine.parts import VOCABULARY, VOCABULARY_SIZE

SPECIAL = 260


def row(seed=1):
    return np.random.default_rng(seed).normal(0, 4, VOCABULARY_SIZE).astype(np.float32)


def direct(logits):
    exact = logits.astype(float)
    return exact - math.log(np.exp(exact).sum())


@pytest.mark.parametrize("token", [0, 97, SPECIAL])
def test_a_log_probability_is_that_of_a_softmax(token):
    told = token_logprob(row(), token, 0, VOCABULARY)
    assert told.id == token
    assert told.token == (b"" if token == SPECIAL else bytes([token]))
    assert told.logprob == pytest.approx(direct(row())[token], abs=1e-5)
    assert told.top == ()


def test_the_most_probable_come_in_order_each_with_its_own():
    told = token_logprob(row(), 97, 20, VOCABULARY).top
    expected = direct(row())
    assert [one.id for one in told] == np.argsort(-expected)[:20].tolist()
    assert [one.logprob for one in told] == pytest.approx([expected[one.id] for one in told], abs=1e-5)
    assert [one.token for one in told] == [VOCABULARY.tokens[one.id] or b"" for one in told]
    assert all(one.top == () for one in told)


def test_of_equally_probable_tokens_the_lower_id_comes_first():
    logits = np.zeros(VOCABULARY_SIZE, np.float32)
    logits[[9, 40, 70]] = 1
    assert [one.id for one in token_logprob(logits, 0, 5, VOCABULARY).top] == [9, 40, 70, 0, 1]


def test_a_certain_token_has_a_log_probability_of_zero():
    logits = np.full(VOCABULARY_SIZE, -np.inf, np.float32)
    logits[5] = 3
    told = token_logprob(logits, 5, 3, VOCABULARY)
    assert told.logprob == 0
    assert [one.id for one in told.top] == [5]  # the others have no chance at all


def test_no_chance_is_told_as_a_number():
    logits = np.zeros(VOCABULARY_SIZE, np.float32)
    logits[7] = -np.inf
    assert token_logprob(logits, 7, 0, VOCABULARY).logprob == LEAST_LOGPROB
