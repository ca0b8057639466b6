"""Guessed tokens change how many steps an answer takes, and nothing else."""

import pytest
import torch

from contract import ChooseRows, Regex, Sampling
from engine.prompt_lookup import EQUAL_TOKENS, MOST_WRONG, PromptLookup
from tests.engine.parts import (
    CountingExecutor,
    answers_together,
    prompts,
    read,
    running_engine,
)


def test_what_followed_the_same_tokens_before_is_guessed():
    lookup = PromptLookup()
    text = [1, 2, 3, 4, 5, 9, 1, 2, 3]
    assert lookup.guess(text, 2) == (4, 5)
    text += [7, 1, 2, 3]
    assert lookup.guess(text, 3) == (7, 1, 2)  # the last time counts
    assert lookup.guess([*text, 8], 3) == ()


@pytest.mark.parametrize("length", range(EQUAL_TOKENS + 1))
def test_a_short_text_gives_no_guess(length):
    assert PromptLookup().guess([1] * length, 4) == ()
    assert PromptLookup().guess([1] * 9, 0) == ()


def test_wrong_guesses_are_followed_by_ever_longer_silence():
    lookup = PromptLookup()
    text = [1] * 9
    silences = []
    for _ in range(MOST_WRONG + 2):
        lookup.learn(0)
        silence = 0
        while not lookup.guess(text, 1):
            silence += 1
        silences.append(silence)
    assert silences == [2, 4, 8, 16, 32, 64, 64, 64]
    lookup.learn(1)
    assert lookup.guess(text, 1) == (1,)


class RepeatingExecutor(CountingExecutor):
    """After every token comes the one that comes next in a circle of seven."""

    def run(self, batch):
        logits = super().run(batch)
        for place, row in enumerate(batch.logit_rows):
            logits[place] = torch.zeros_like(logits[place])
            logits[place, (batch.tokens[row] + 1) % 7] = 1.0
        return logits


@pytest.mark.parametrize("end_ids", [frozenset(), frozenset({6})])
@pytest.mark.parametrize("max_tokens", [5, 30, 31, 32, 33])
def test_an_answer_that_repeats_itself_takes_fewer_steps(max_tokens, end_ids):
    sampling = Sampling(temperature=0, max_tokens=max_tokens)
    answers = []
    for cheap_rows in (0, 4):
        executor = RepeatingExecutor(cache_blocks=64, cheap_rows=cheap_rows)
        with running_engine(executor, end_ids=end_ids) as engine:
            answers.append(read(engine.generate([0, 1, 2, 3], sampling)))
    plain, guessed = answers
    assert guessed.ids == plain.ids
    assert guessed.completion.reason == plain.completion.reason
    assert guessed.completion.usage.steps <= plain.completion.usage.steps
    if not end_ids and max_tokens >= 30:
        # Seven steps until the circle is closed, then four tokens a step.
        assert guessed.completion.usage.steps <= 7 + (max_tokens - 7) / 4 + 2


def answer_all(executor, cheap_rows, tasks):
    executor.cheap_rows = cheap_rows
    with running_engine(executor, capacity=3) as engine:
        return answers_together(engine, tasks)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_answers_are_the_same_with_guesses_and_without(executor_of, temperature):
    """A tiny model repeats itself often, so that many guesses come true and many do not."""
    sampling = Sampling(temperature=temperature, top_k=3, max_tokens=60, seed=4, repetition_penalty=0.7)
    tasks = [(prompt, sampling) for prompt in prompts()[6:14]]
    plain, guessed = (answer_all(executor_of("Llama"), rows, tasks) for rows in (0, 8))
    assert [answer.ids for answer in guessed] == [answer.ids for answer in plain]
    assert [answer.text for answer in guessed] == [answer.text for answer in plain]
    steps = [sum(answer.completion.usage.steps for answer in answers) for answers in (guessed, plain)]
    assert steps[0] < steps[1]


@pytest.mark.parametrize(
    "form", [ChooseRows(("aaa", "aab", "abab", "ba"), 4, False), Regex("(abab|cdcd|aaaa){8}")]
)
def test_guesses_keep_the_form(executor_of, form):
    tasks = [
        (prompt, Sampling(temperature=1, seed=place, max_tokens=60), form)
        for place, prompt in enumerate(prompts()[:6])
    ]
    plain, guessed = (answer_all(executor_of("Llama"), rows, tasks) for rows in (0, 8))
    assert [answer.ids for answer in guessed] == [answer.ids for answer in plain]


def test_a_guess_past_a_stop_string_is_not_told():
    executor = RepeatingExecutor(cache_blocks=64, cheap_rows=8)
    with running_engine(executor) as engine:
        text = [97, 98, 99, 100] * 4
        prompt = [*text, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
        answer = read(engine.generate(prompt, Sampling(temperature=0, stop=("\x05\x06",))))
    assert answer.text == "\x03\x04"
    assert answer.completion.reason == "stop"
