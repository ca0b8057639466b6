"""The TPU worker in this process, on bmodels that the vendor's compiler made and its simulator runs."""

import json
from contextlib import contextmanager
from functools import cache

import numpy
import pytest
from msgspec.structs import replace

import LLMkernel
from contract import (
    CannotDo,
    Chat,
    ChatMessage,
    ChooseRows,
    PredictOption,
    PromptTooLong,
    Sampling,
)
from engine.batch import Batch, Span
from engine.executors.sophon.executor import SophonExecutor
from tests.engine.parts import answers_together, read
from tests.tpu.bmodels import DYNAMIC_F16, HISTORY, IDS_ONLY, NARROW, PLAIN, provide
from tests.tpu.test_contract import FAR, MARGIN, distance
from workers.placement import Board, Placement
from workers.sophon import load_sophon_model

#: A few tokens: it is rare that every choice of many is clear.
GREEDY = Sampling(temperature=0.0, max_tokens=3)


@pytest.fixture(scope="module")
def model_of(sail):
    """Return a worker's model by its recipe, loaded once for all tests."""
    loaded = []

    @cache
    def load(recipe):
        provide(recipe)
        board = Board(recipe.checkpoint, (0,))
        loaded.append(load_sophon_model(recipe.bmodel, "tiny", board, Placement(capacity=4)))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


@contextmanager
def executor_of(sail, recipe):
    executor = SophonExecutor(
        sail, provide(recipe).bmodel, (0,), most_lanes=2, vocabulary_size=recipe.vocabulary_size
    )
    try:
        yield executor
    finally:
        executor.close()


def batch_of(executor, *texts, known=0):
    """Return a step that computes texts from their `known`-th token on, each in a lane of its own."""
    batch = Batch([], [], [], [], [])
    lane_blocks = executor.lane_slots // executor.block_tokens
    for lane, text in enumerate(texts):
        first, rows = len(batch.tokens), range(known, len(text))
        batch.tokens.extend(text[known:])
        batch.positions.extend(rows)
        batch.slots.extend(lane * executor.lane_slots + row for row in rows)
        blocks = tuple(range(lane * lane_blocks, (lane + 1) * lane_blocks))
        batch.spans.append(Span(first, len(rows), len(text), blocks))
        batch.logit_rows.append(first + len(rows) - 1)
    return batch


@pytest.mark.parametrize("recipe", [PLAIN, DYNAMIC_F16, HISTORY], ids=str)
def test_logits_are_near_those_of_transformers(sail, reference, recipe):
    random = numpy.random.default_rng(6)
    texts = [random.integers(1, 250, count).tolist() for count in (6, 21)]
    with executor_of(sail, recipe) as executor:
        first = executor.run(batch_of(executor, *(text[:-1] for text in texts)))
        second = executor.run(batch_of(executor, texts[0], known=len(texts[0]) - 1))
    wanted = reference(recipe).logits
    for logits, text in zip(first, texts, strict=True):
        assert distance(logits.numpy(), wanted(text[:-1])) < FAR[recipe.quantize]
    assert distance(second[0].numpy(), wanted(texts[0])) < FAR[recipe.quantize]


@pytest.mark.parametrize(
    ("recipe", "length"), [(PLAIN, 5), (IDS_ONLY, 7), (DYNAMIC_F16, 9), (HISTORY, 6), (HISTORY, 27)], ids=str
)
def test_greedy_answers_are_those_of_transformers(model_of, reference, recipe, length):
    prompt, tokens = reference(recipe).sure_prompt(length, GREEDY.max_tokens, MARGIN)
    assert read(model_of(recipe).engine.generate(prompt, GREEDY)).ids == tokens


def test_a_prompt_in_chunks_and_behind_a_known_prefix_gives_the_same(model_of, reference):
    generate = model_of(HISTORY).engine.generate
    prompt, tokens = reference(HISTORY).sure_prompt(40, GREEDY.max_tokens, MARGIN, seed=1)
    first, again = (read(generate(prompt, GREEDY)) for _ in range(2))
    assert first.ids == again.ids == tokens
    assert (first.completion.usage.cached_tokens, again.completion.usage.cached_tokens) == (0, 32)
    other = [*prompt[:32], 9, 8, 7]
    beside = read(generate(other, GREEDY))
    assert beside.completion.usage.cached_tokens == 32
    assert beside.ids[0] == reference(HISTORY).logits(other).argmax()


def test_choices_get_a_copy_of_their_prompt(model_of, reference):
    prompt, tokens = reference(HISTORY).sure_prompt(38, GREEDY.max_tokens, MARGIN, seed=2)
    answer = list(model_of(HISTORY).engine.generate(prompt, replace(GREEDY, choices=3)))
    for choice in range(3):
        assert [id_ for token in answer if token.choice == choice for id_ in token.ids] == tokens


def test_answers_together_are_those_of_each_alone(model_of):
    engine = model_of(PLAIN).engine
    tasks = [(list(range(start, start + 9)), Sampling(max_tokens=3, seed=start)) for start in (10, 60)]
    alone = [read(engine.generate(*task)).ids for task in tasks]
    assert [answer.ids for answer in answers_together(engine, tasks)] == alone


def test_the_context_ends_with_the_last_row(model_of):
    prompt = numpy.random.default_rng(4).integers(1, 250, PLAIN.length - 2).tolist()
    answer = read(model_of(PLAIN).engine.generate(prompt, Sampling(ignore_end=True)))
    assert answer.completion.reason == "length"
    assert len(prompt) + len(answer.ids) == PLAIN.length
    with pytest.raises(PromptTooLong, match=str(PLAIN.length)):
        read(model_of(PLAIN).engine.generate([*prompt, 1, 2], GREEDY))


def test_a_prompt_wider_than_the_nets_is_refused_with_both_numbers(model_of):
    generate = model_of(NARROW).engine.generate
    assert len(read(generate([7] * 32, GREEDY)).ids) == 3
    with pytest.raises(PromptTooLong, match=r"33 .*32"):
        read(generate([7] * 33, GREEDY))


def test_rows_are_chosen_and_nothing_else(model_of):
    form = ChooseRows(("ab", "c", "ac"), 2, none_allowed=False)
    answer = model_of(PLAIN).generate([ChatMessage("user", "b?")], Sampling(temperature=0.0), form)
    chosen = json.loads("".join(token.text for token in answer))
    assert 1 <= len(chosen) <= 2
    assert set(chosen.values()) < {"ab", "c", "ac"}


def test_an_option_is_predicted(model_of):
    question = Chat((ChatMessage("user", "A or B"),), PredictOption(("A", "B")))
    *tokens, _ = LLMkernel.chat(model_of(PLAIN), question, Sampling())
    assert "".join(token.text for token in tokens) in ("A", "B")


def test_without_logits_a_form_is_refused_by_name_and_chat_works(model_of):
    model = model_of(IDS_ONLY)
    messages = [ChatMessage("user", "ab")]
    with pytest.raises(CannotDo, match=r"^form: .*--do_sample"):
        next(model.generate(messages, GREEDY, ChooseRows(("ab",), 1)))
    assert len(read(model.generate(messages, GREEDY)).ids) <= 3
