"""Options through the engine: where the letter is looked for, which one is taken, what that costs."""

import pytest
import torch

from contract import GREEDY, PredictOption
from grammar.options import LEAD_IN, LEAD_TOKENS
from tests.engine.parts import (
    VOCABULARY_SIZE,
    CountingExecutor,
    answers_together,
    prompts,
    read,
    running_engine,
    tiny_model,
    torch_executor,
)

FORM = PredictOption(("A", "B", "C", "D"))
LETTERS = [ord(letter) for letter in "ABCD"]


def predicted(executor, prompt, form=FORM, **options):
    with running_engine(executor, **options) as engine:
        return read(engine.generate(prompt, GREEDY, form))


def test_a_model_that_answers_at_once_costs_its_prompt_only():
    answer = predicted(CountingExecutor(), [1, 2, ord("@")])  # A comes after @
    assert (answer.text, answer.completion.reason) == ("A", "stop")
    assert answer.completion.usage.steps == 1


def test_a_model_that_says_a_few_words_first_is_heard_out():
    answer = predicted(CountingExecutor(), [1, 2, ord(";")])
    assert (answer.text, answer.completion.reason) == ("<=>?@A", "stop")
    assert answer.completion.usage.steps == 6


def test_a_model_that_does_not_get_there_is_led_there_in_one_more_step():
    answer = predicted(CountingExecutor(), [ord("a")])
    assert answer.text == "bcdefghijklm" + LEAD_IN + "A"
    assert answer.completion.usage.steps == LEAD_TOKENS + 1


def test_an_end_of_the_answer_is_not_an_answer():
    answer = predicted(CountingExecutor(), [ord("=")], end_ids=frozenset([256]))
    assert answer.text == ">?@A"


def logits_after(prompt, model):
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0, -1, :VOCABULARY_SIZE]


class Speaking(CountingExecutor):
    """After every token comes the same row of numbers."""

    def __init__(self, **scores):
        super().__init__()
        self._row = torch.zeros(VOCABULARY_SIZE)
        for letter, score in scores.items():
            self._row[ord(letter)] = score

    def run(self, batch):
        return self._row.repeat(len(super().run(batch)), 1)


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"B": 3.0, "C": 2.0}, "B"),
        ({"B": 3.0, "C": 4.0}, "C"),
        ({"E": 9.0, "B": 3.0, "C": 4.0}, "E" * LEAD_TOKENS + LEAD_IN + "C"),
        ({"E": 9.0, "D": -1.0, "A": -2.0, "B": -3.0, "C": -4.0}, "E" * LEAD_TOKENS + LEAD_IN + "D"),
    ],
)
def test_the_most_probable_letter_is_taken_where_the_letter_stands(scores, text):
    assert predicted(Speaking(**scores), [1]).text == text


@pytest.mark.parametrize("architecture", ["Llama", "Glm"])
def test_a_real_model_gives_its_most_probable_letter(architecture):
    """Its words are those that it would say anyway, up to the bound; the letter is the best of the four."""
    model = tiny_model(architecture)
    with running_engine(torch_executor(architecture)) as engine:
        for prompt in prompts()[3:7]:
            answer = read(engine.generate(prompt, GREEDY, FORM))
            *words, letter = answer.ids
            for place, word in enumerate(words[:LEAD_TOKENS]):
                assert word == int(logits_after([*prompt, *words[:place]], model)[:256].argmax())
            scores = logits_after([*prompt, *words], model)
            assert letter == max(LETTERS, key=lambda id_: scores[id_])
            assert answer.completion.usage.steps <= LEAD_TOKENS + 1


def test_an_answer_is_the_same_in_a_full_batch():
    tasks = [(prompt, GREEDY, FORM) for prompt in prompts()[:8]]
    with running_engine(torch_executor("Llama"), capacity=8) as engine:
        together = answers_together(engine, tasks)
        alone = [read(engine.generate(*task)) for task in tasks]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    assert {answer.ids[-1] for answer in together} <= set(LETTERS)


def test_a_context_that_is_full_cuts_the_answer_off():
    answer = predicted(CountingExecutor(), [ord("a")] * 20, context_tokens=24)
    assert answer.completion.reason == "length"
