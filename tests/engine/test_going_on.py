"""Answers that were begun elsewhere: the rest is what would have come, wherever they were cut."""

import pytest
from msgspec.structs import replace

from contract import ChooseRows, Regex, Sampling, Token, WorkerLost
from tests.engine.parts import CountingExecutor, prompts, read, running_engine

SEEDED = Sampling(temperature=1.2, max_tokens=14, seed=5)
ROWS = ChooseRows(("alpha", "alpine", "beta", "bet", "gamma"), 4, none_allowed=False)

CASES = {
    "plain": (SEEDED, None),
    "greedy": (replace(SEEDED, temperature=0), None),
    "penalties": (replace(SEEDED, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.5), None),
    "choices": (replace(SEEDED, choices=3, max_tokens=6), None),
    "log probabilities": (replace(SEEDED, logprobs=2, max_tokens=6), None),
    "rows": (replace(SEEDED, max_tokens=None), ROWS),
    "choices of rows": (replace(SEEDED, choices=2, max_tokens=None), ROWS),
    "pattern": (replace(SEEDED, max_tokens=None), Regex("(red|green|[0-9]{2}), (yes|no)!")),
}


def events_of(engine, sampling, form, said=()):
    """Return the tokens of all choices as they come, and how the generation ended."""
    events, generation = [], engine.generate(prompts()[3], sampling, form, said=said)
    while True:
        try:
            event = next(generation)
        except StopIteration as end:
            return events, end.value
        if not event.is_empty:
            events.append(event)


def said_by(events, choices):
    """Return the ids that the events bring, by choice."""
    return tuple(
        tuple(id_ for event in events if event.choice == choice for id_ in event.ids)
        for choice in range(choices)
    )


def by_choice(events, choices):
    return [[event for event in events if event.choice == choice] for choice in range(choices)]


@pytest.mark.parametrize("case", CASES)
def test_an_answer_goes_on_as_it_would_have_wherever_it_was_cut(executor_of, case):
    sampling, form = CASES[case]
    with running_engine(executor_of("Qwen2"), context_tokens=256) as engine:
        whole, completion = events_of(engine, sampling, form)
    assert len(whole) > 2
    with running_engine(executor_of("Qwen2"), context_tokens=256, step_tokens=7) as engine:
        for cut in range(len(whole) + 1):
            said = said_by(whole[:cut], sampling.choices)
            again, ended = events_of(engine, sampling, form, said)
            for choice, events in enumerate(by_choice(again, sampling.choices)):
                known = len(by_choice(whole[:cut], sampling.choices)[choice])
                expected = by_choice(whole, sampling.choices)[choice]
                assert_same(events[known:], expected[known:])
                assert [(event.index, event.ids, event.text) for event in events[:known]] == [
                    (event.index, event.ids, event.text) for event in expected[:known]
                ]
            assert ended.reasons == completion.reasons
            assert ended.usage.completion_tokens == completion.usage.completion_tokens


def assert_same(events, expected):
    """Equal but for the last digits of log probabilities: sums were taken in another order."""
    assert [replace(event, logprobs=()) for event in events] == [
        replace(event, logprobs=()) for event in expected
    ]
    found = [one.logprob for event in events for one in event.logprobs]
    assert found == pytest.approx([one.logprob for event in expected for one in event.logprobs], abs=0.01)


def test_what_was_said_is_computed_like_a_prompt_and_not_chosen_again():
    sampling = Sampling(temperature=0, max_tokens=40, ignore_end=True)
    with running_engine(CountingExecutor(cache_blocks=100), context_tokens=128) as engine:
        answer = read(engine.generate([1, 2, 3], sampling))
    executor = CountingExecutor(cache_blocks=100)
    with running_engine(executor, context_tokens=128) as engine:
        events = [*engine.generate([1, 2, 3], sampling, said=[answer.ids[:30]])]
    assert sum(len(batch.tokens) for batch in executor.batches) <= 3 + 40
    assert len(executor.batches[0].tokens) == 33
    assert [id_ for event in events for id_ in event.ids] == answer.ids


def test_an_answer_that_only_lacked_its_ending_ends_at_once():
    executor = CountingExecutor()
    with running_engine(executor) as engine:
        events, completion = events_of(engine, Sampling(temperature=0, max_tokens=2), None, [(7, 8)])
    assert events == [Token(0, (7,), events[0].text), Token(1, (8,), events[1].text)]
    assert completion.reasons == ("length",)
    assert executor.batches == []


@pytest.mark.parametrize(
    ("said", "form"),
    [((200,), ROWS), ((ord("{"), ord("x")), ROWS), (tuple(range(65, 90)), None)],
    ids=["never a beginning", "not allowed at its place", "longer than the answer may be"],
)
def test_what_cannot_have_been_said_here_is_refused(said, form):
    with running_engine(CountingExecutor()) as engine:
        with pytest.raises(WorkerLost, match="cannot be gone on with"):
            events_of(engine, Sampling(max_tokens=20), form, [said])
        assert events_of(engine, Sampling(max_tokens=2), None)[1].reasons == ("length",)
