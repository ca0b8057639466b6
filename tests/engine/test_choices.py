"""Several answers to one prompt, side by side."""

from itertools import takewhile

import pytest
from msgspec.structs import replace

from contract import ChooseRows, InvalidRequest, Overloaded, Sampling, ServingError
from tests.engine.parts import (
    BEGINNING,
    CountingExecutor,
    first_token,
    read,
    running_engine,
)

SEEDED = Sampling(temperature=1.3, max_tokens=8, seed=11)


def read_choices(generator):
    """Return the ids of each choice by its number, and how it ended."""
    ids: dict[int, list[int]] = {}
    while True:
        try:
            token = next(generator)
        except StopIteration as end:
            return ids, end.value
        if not token.is_empty:
            assert token.index == len(ids.setdefault(token.choice, []))
            ids[token.choice] += token.ids


def test_every_choice_is_an_answer_of_its_own_and_the_first_is_that_of_one_alone(executor_of):
    with running_engine(executor_of("Llama")) as engine:
        alone = read(engine.generate(BEGINNING, SEEDED)).ids
        ids, completion = read_choices(engine.generate(BEGINNING, replace(SEEDED, choices=5)))
        again, _ = read_choices(engine.generate(BEGINNING, replace(SEEDED, choices=3)))
    assert list(ids) == [0, 1, 2, 3, 4]
    assert ids[0] == alone
    assert [again[choice] for choice in range(3)] == [ids[choice] for choice in range(3)]
    assert len({tuple(each) for each in ids.values()}) > 2
    assert completion.reasons == ("length",) * 5
    assert completion.usage.completion_tokens == 40
    assert completion.usage.prompt_tokens == len(BEGINNING)


def test_the_prompt_is_computed_once_for_all_choices():
    executor = CountingExecutor(cache_blocks=200)
    with running_engine(executor, step_tokens=1000) as engine:
        read_choices(engine.generate(list(range(41)), Sampling(temperature=0, max_tokens=2, choices=8)))
    # 41 tokens once; then each of the others computes the last one, which fills no block.
    assert sorted(len(batch.tokens) for batch in executor.batches)[-1] == 41
    assert sum(len(batch.tokens) for batch in executor.batches) == 41 + 7 + 8


def test_each_choice_ends_in_its_own_way():
    with running_engine(CountingExecutor(), end_ids=frozenset({ord("e")})) as engine:
        form = ChooseRows(("x", "y"), 2)
        ids, completion = read_choices(
            engine.generate([1], Sampling(temperature=2, seed=3, choices=6, max_tokens=12), form)
        )
    lengths = [len(ids[choice]) for choice in range(6)]
    assert set(lengths) >= {2, 12}
    for length, reason in zip(lengths, completion.reasons, strict=True):
        assert reason == ("length" if length == 12 else "stop")


def test_closing_the_generator_cancels_every_choice():
    executor = CountingExecutor(cache_blocks=400)
    with running_engine(executor, context_tokens=1000) as engine:
        generator = engine.generate([1], Sampling(temperature=0, choices=4))
        first_token(generator)
        generator.close()
        read(engine.generate([200], Sampling(temperature=0, max_tokens=2)))


def test_choices_come_all_or_not_at_all():
    executor = CountingExecutor()
    with running_engine(executor, capacity=1) as engine:
        executor.gate.clear()
        tasks = [
            engine.generate([number], Sampling(temperature=0, max_tokens=1, choices=3))
            for number in range(12)
        ]
        held = list(takewhile(has_room, enumerate(tasks)))
        assert 0 < len(held) < len(tasks)
        executor.gate.set()
        for number, generator in held:
            ids, _ = read_choices(generator)
            assert ids == {choice: [number + 1] for choice in range(3)}


def has_room(numbered):
    try:
        next(numbered[1])
    except Overloaded:
        return False
    return True


def test_a_failure_of_the_batch_ends_all_choices():
    executor = CountingExecutor(cache_blocks=400)
    with running_engine(executor, context_tokens=1000) as engine:
        generator = engine.generate([1], Sampling(temperature=0, choices=3))
        first_token(generator)
        executor.failure = RuntimeError("gone")
        with pytest.raises(ServingError, match="the model failed"):
            list(generator)


def test_a_bias_for_an_id_that_does_not_exist_is_refused():
    with running_engine(CountingExecutor()) as engine, pytest.raises(InvalidRequest, match="logit_bias"):
        next(engine.generate([1], Sampling(logit_bias={100_000: 1.0})))
