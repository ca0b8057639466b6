"""From logits to tokens, each sequence by its own settings and never by its neighbours'."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from contract import InvalidRequest, Sampling, ServingError
from engine.sampler import Chosen, check_sampling, choose
from grammar import Vocabulary
from tests.engine.choosing import Allowing, ending_sequence, masked, token_of, tokens_of
from tests.engine.parts import VOCABULARY, VOCABULARY_SIZE, sequence_of


@pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-30, 1e-44, 1e-300, 5e-324])
def test_next_to_no_temperature_takes_the_most_probable(temperature):
    sampling = Sampling(temperature=temperature, top_p=0.9, min_p=0.1)
    assert token_of([-80.0, 100.0, 99.0, 3.0], sequence_of([0], sampling=sampling, seed=3)) == 1


def test_temperature_zero_takes_the_first_of_the_most_probable():
    logits = torch.tensor([[0.0, 5.0, 5.0], [7.0, 5.0, 5.0]])
    assert tokens_of(logits, [sequence_of([0]), sequence_of([0])]) == [1, 0]


def test_the_draw_depends_on_the_answers_length_not_on_the_prompts():
    sampling = Sampling(temperature=1.5)
    logits = torch.arange(VOCABULARY_SIZE).float()[None] / 100
    short = sequence_of([1, 9, 9], prompt_tokens=1, sampling=sampling, seed=8)
    long = sequence_of([1, 2, 3, 4, 9, 9], prompt_tokens=4, sampling=sampling, seed=8)
    other = sequence_of([1, 9, 9, 9], prompt_tokens=1, sampling=sampling, seed=8)
    assert choose(logits, [short]) == choose(logits, [long]) != choose(logits, [other])


def test_choices_draw_differently():
    sequences = [sequence_of([1, 9], sampling=Sampling(temperature=2), seed=8) for _ in range(30)]
    for choice, sequence in enumerate(sequences):
        sequence.choice = choice
    assert len(set(tokens_of(torch.zeros(30, VOCABULARY_SIZE), sequences))) > 20


SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(temperature=1),
    Sampling(temperature=1.3, top_k=5, logprobs=3),
    Sampling(temperature=0.9, top_p=0.5, presence_penalty=1),
    Sampling(temperature=1.9, top_p=0.98, logit_bias={3: 4.0, 9: -100.0}),
    Sampling(temperature=0, repetition_penalty=3, logprobs=0),
    Sampling(temperature=1, min_p=0.2, frequency_penalty=-1),
    Sampling(temperature=0.7, top_k=90, top_p=0.9, min_p=0.05, min_tokens=9, logprobs=20),
]

CONSTRAINTS = [None, None, Allowing([5, 3, 9, 200], may_end=True), Allowing(masked(range(4, 270, 3)))]


def mixed_sequences(vocabulary=VOCABULARY):
    """Return 32 sequences, no two alike."""
    sequences = [
        ending_sequence(
            [1, 2, place, place % 5],
            prompt_tokens=2,
            sampling=SAMPLINGS[place % len(SAMPLINGS)],
            seed=place,
            constraint=CONSTRAINTS[place // len(SAMPLINGS)] if vocabulary is VOCABULARY else None,
        )
        for place in range(32)
    ]
    for sequence in sequences:
        sequence.vocabulary = vocabulary
    return sequences


#: More tokens than the sampler looks at in one piece, and a number that no vector register divides.
LARGE_VOCABULARY = Vocabulary([None] * 20_011, lambda text: [])


@pytest.mark.parametrize("vocabulary", [VOCABULARY, LARGE_VOCABULARY])
@pytest.mark.parametrize("has_padding", [False, True])
def test_a_choice_depends_on_no_neighbour(vocabulary, has_padding):
    columns = len(vocabulary)
    generator = torch.Generator().manual_seed(columns)
    logits = torch.randn(32, columns + 3 * has_padding, generator=generator)[:, :columns] * 3
    together = choose(logits, mixed_sequences(vocabulary))
    alone = [
        choose(logits[row : row + 1].clone(), [sequence])[0]
        for row, sequence in enumerate(mixed_sequences(vocabulary))
    ]
    assert together == alone  # log probabilities to the last bit
    rows = torch.randperm(32, generator=generator).tolist()
    sequences = mixed_sequences(vocabulary)
    mixed = choose(logits[rows], [sequences[row] for row in rows])
    assert mixed == [together[row] for row in rows]
    assert len({chosen.token for chosen in together}) > 8


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 32])
def test_many_rows_are_shared_among_threads_and_nothing_else_changes(rows):
    logits = torch.randn(rows, VOCABULARY_SIZE, generator=torch.Generator().manual_seed(3))
    with ThreadPoolExecutor(3) as threads:
        shared = choose(logits, mixed_sequences()[:rows], threads)
    assert shared == choose(logits, mixed_sequences()[:rows])


def test_rows_may_be_given_one_by_one():
    logits = torch.randn(32, VOCABULARY_SIZE, generator=torch.Generator().manual_seed(2))
    rows = (row for row in logits)
    assert choose(rows, mixed_sequences()) == choose(logits, mixed_sequences())


@pytest.mark.parametrize("kind", ["all minus infinity", "not a number", "infinity", "all not a number"])
@pytest.mark.parametrize("place", range(len(SAMPLINGS)))
def test_a_row_without_numbers_fails_alone(kind, place):
    logits = torch.randn(32, VOCABULARY_SIZE, generator=torch.Generator().manual_seed(3))
    right = choose(logits, mixed_sequences())
    row = logits[place]
    if kind == "infinity":
        row[4] = torch.inf
    elif kind == "not a number":
        row[4] = torch.nan
    else:
        row[:] = torch.nan if kind == "all not a number" else -torch.inf
    chosen = choose(logits, mixed_sequences())
    assert isinstance(chosen[place], ServingError)
    assert "no numbers" in str(chosen[place])
    assert chosen[:place] + chosen[place + 1 :] == right[:place] + right[place + 1 :]


def test_logits_beyond_all_measure_are_numbers_still():
    least, greatest = torch.finfo(torch.float32).min, torch.finfo(torch.float32).max
    for temperature in (0.0, 1e-4, 0.5, 2.0):
        for options in ({}, {"top_p": 0.9}, {"repetition_penalty": 10.0}, {"top_p": 0.9999999}):
            sampling = Sampling(temperature=temperature, min_p=0.1, **options)
            assert token_of([least, greatest, least], sequence_of([0, 2], sampling=sampling)) == 1


def penalized(logits, tokens, prompt_tokens, **penalties):
    """Return what greedy choice sees: the order of all tokens after the penalties."""
    sampling = Sampling(temperature=0, **penalties)
    sequence = sequence_of(tokens, prompt_tokens=prompt_tokens, sampling=sampling)
    left = list(range(len(logits)))
    order = []
    while left:
        scores = torch.full((1, len(logits)), -torch.inf)
        scores[0, left] = torch.tensor(logits)[left]
        order.append(tokens_of(scores, [sequence])[0])
        left.remove(order[-1])
    return order


@pytest.mark.parametrize(
    ("penalties", "order"),
    [
        # Tokens 0 (in the prompt only), 1 (once in the answer), 2 (three times), 3 and 4 (never).
        ({}, [0, 1, 2, 3, 4]),
        ({"presence_penalty": 0.5}, [0, 3, 1, 2, 4]),
        ({"frequency_penalty": 0.5}, [0, 3, 1, 4, 2]),
        ({"presence_penalty": -0.5}, [1, 2, 0, 3, 4]),
        ({"repetition_penalty": 2.0}, [3, 0, 1, 2, 4]),
        ({"repetition_penalty": 0.5}, [0, 1, 2, 3, 4]),
    ],
)
def test_penalties_count_what_they_should(penalties, order):
    logits = [1.5, 1.3, 1.2, 1.0, 0.1]
    assert penalized(logits, [0, 1, 2, 2, 2], 1, **penalties) == order


def test_repetition_pushes_negative_logits_down_too():
    assert penalized([-1.0, -1.5], [0], 1, repetition_penalty=2.0) == [1, 0]


def test_penalties_follow_the_answer():
    sampling = Sampling(temperature=0, frequency_penalty=1)
    sequence = sequence_of([3], sampling=sampling)
    said = []
    for _ in range(5):
        said.append(token_of([0.0, 2.5, 3.2, 0.1], sequence))
        sequence.accept(said[-1])
    assert said == [2, 1, 2, 1, 2]  # 3.2; 2.5; 2.2; 1.5; 1.2


def test_logits_are_left_as_they_are():
    logits = torch.ones(1, 272)
    sampling = Sampling(
        temperature=0,
        repetition_penalty=2,
        presence_penalty=1,
        frequency_penalty=1,
        logit_bias={0: 9.0, 2: -9.0},
        ignore_end=True,
        logprobs=2,
    )
    for constraint in (None, Allowing([3, 4]), Allowing(masked([3, 4]))):
        sequence = ending_sequence([0, 1], prompt_tokens=1, sampling=sampling, constraint=constraint)
        assert tokens_of(logits, [sequence]) == [0 if constraint is None else 3]
        assert logits.tolist() == [[1.0] * 272]


def test_a_bias_is_added_to_the_logits_of_its_tokens():
    def chosen(bias, **options):
        sampling = Sampling(temperature=0, logit_bias=bias, **options)
        return token_of([1.0, 2.0, 3.0, 4.0], sequence_of([0], sampling=sampling))

    assert chosen({}) == 3
    assert chosen({3: -1.5}) == 2
    assert chosen({0: 3.5, 1: 2.0}) == 0
    assert chosen({0: 100.0, 3: -100.0}) == 0
    # The bias comes first: (1 + 4) / 2 is less than 4, 1 / 2 + 4 would not be.
    assert chosen({0: 4.0}, repetition_penalty=2.0) == 3


def test_a_bias_of_minus_a_hundred_bans_a_token():
    sampling = Sampling(temperature=1, logit_bias={1: -100.0, 2: -100.0})
    sequences = [sequence_of([0], sampling=sampling, seed=seed) for seed in range(300)]
    assert Counter(tokens_of(torch.zeros(300, 4), sequences)).keys() == {0, 3}


def test_log_probabilities_are_told_only_where_they_are_asked_for():
    logits = torch.zeros(2, VOCABULARY_SIZE)
    asked = sequence_of([1], sampling=Sampling(temperature=0, logprobs=2))
    chosen = choose(logits, [sequence_of([1]), asked])
    assert chosen[0] == Chosen(0, None)
    assert chosen[1].logprob.id == chosen[1].token == 0
    assert [one.id for one in chosen[1].logprob.top] == [0, 1]


def test_a_row_without_a_probability_for_each_token_cannot_tell_them():
    logits = torch.zeros(1, VOCABULARY_SIZE)
    logits[0, 9] = torch.nan
    constraint = Allowing([4, 5])
    assert tokens_of(logits, [sequence_of([1], constraint=constraint)]) == [4]
    asked = sequence_of([1], sampling=Sampling(temperature=0, logprobs=0), constraint=constraint)
    assert isinstance(choose(logits, [asked])[0], ServingError)


def test_log_probabilities_are_the_models_own():
    logits = torch.randn(1, VOCABULARY_SIZE, generator=torch.Generator().manual_seed(6)) * 3
    plain = torch.log_softmax(logits[0].double(), dim=-1)
    sampling = Sampling(
        temperature=2,
        top_k=1,
        logit_bias={10: 60.0},
        repetition_penalty=5,
        presence_penalty=2,
        logprobs=5,
    )
    for constraint in (None, Allowing([8, 9, 10]), Allowing(masked([8, 9, 10]))):
        sequence = sequence_of([1, 2, 10], prompt_tokens=1, sampling=sampling, constraint=constraint)
        told = choose(logits, [sequence])[0].logprob
        assert (told.id, told.token) == (10, b"\n")
        assert told.logprob == pytest.approx(float(plain[10]), abs=1e-5)
        assert [one.id for one in told.top] == plain.topk(5).indices.tolist()
        assert [one.logprob for one in told.top] == pytest.approx(plain.topk(5).values.tolist(), abs=1e-5)


def test_a_bias_beyond_the_vocabulary_is_refused():
    check_sampling(Sampling(), 1)
    check_sampling(Sampling(logit_bias={0: 1.0, 271: 2.0}), 272)
    with pytest.raises(InvalidRequest, match="logit_bias names token 272"):
        check_sampling(Sampling(logit_bias={272: 1.0, 3: 1.0}), 272)


def test_an_answer_cannot_be_longer_than_it_may():
    check_sampling(Sampling(min_tokens=5, max_tokens=5), 272)
    check_sampling(Sampling(min_tokens=5), 272)
    with pytest.raises(InvalidRequest, match="min_tokens is 6; at most max_tokens, which is 5"):
        check_sampling(Sampling(min_tokens=6, max_tokens=5), 272)
