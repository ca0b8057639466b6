"""The whole engine around tiny models: what comes out, what it costs, and what is left behind."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from random import Random
from threading import Thread

import pytest
import torch

from contract import (
    Draining,
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    Sampling,
    ServingError,
)
from engine.executors.native.executor import NativeExecutor
from engine.executors.torch_executor import TorchExecutor
from engine.scheduler import Scheduler
from grammar import Vocabulary
from tests.engine.parts import (
    ARCHITECTURES,
    BEGINNING,
    DEADLINE_SECONDS,
    GREEDY,
    VOCABULARY,
    CountingExecutor,
    answers_together,
    assert_empty,
    engine_of,
    first_token,
    plain_model,
    prompts,
    read,
    running_engine,
    tiny_model,
)

#: Tokens of context that no test lives to see filled, and the blocks of four that hold them.
ENDLESS = 100_000
MANY_BLOCKS = ENDLESS // 4


#: How far below the most probable token's logit one may be that the native step chooses: it rounds to 16
#: bits on its way, and these logits spread over dozens.
NATIVE_TOLERANCE = 0.5


@cache
def generated(architecture, place):
    """What transformers' own greedy generation answers to a prompt."""
    prompt = prompts()[place]
    options = {"max_new_tokens": 12, "do_sample": False, "use_cache": True}
    return plain_model(architecture).generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()


def assert_most_probable(executor, architecture, prompt, answer):
    """Every token of the answer is what the model as it is finds most probable at its place."""
    with torch.inference_mode():
        logits = plain_model(architecture)(torch.tensor([prompt + answer])).logits[0]
    logits = logits[len(prompt) - 1 : -1]
    shortfall = logits.amax(-1) - logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert shortfall.max() <= (NATIVE_TOLERANCE if isinstance(executor, NativeExecutor) else 0)


def assert_generated(executor, architecture, place, answer):
    """The answer is transformers' own; the native step's may part from it where two tokens are near."""
    if not isinstance(executor, NativeExecutor):
        assert answer == generated(architecture, place)
    assert_most_probable(executor, architecture, prompts()[place], answer)


LENGTH_12 = Sampling(temperature=0, max_tokens=12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_transformers_own_alone_and_in_a_batch(executor_of, architecture):
    executor = executor_of(architecture)
    with running_engine(executor, capacity=32, step_tokens=37) as engine:
        tasks = [(prompt, LENGTH_12) for prompt in prompts()]
        together = [answer.ids for answer in answers_together(engine, tasks)]
        for place in range(0, len(tasks), 6):
            alone = read(engine.generate(*tasks[place])).ids
            assert alone == together[place]
            assert_generated(executor, architecture, place, alone)
    for prompt, ids in zip(prompts(), together, strict=True):
        assert len(ids) == 12
        assert_most_probable(executor, architecture, prompt, ids)


@pytest.mark.parametrize("step_tokens", [1, 3, 16, 1000])
def test_the_size_of_a_chunk_does_not_matter(executor_of, step_tokens):
    executor = executor_of("Llama")
    with running_engine(executor, step_tokens=step_tokens) as engine:
        for place in (0, 5, 15, 20):
            answer = read(engine.generate(prompts()[place], LENGTH_12)).ids
            assert_generated(executor, "Llama", place, answer)


def test_a_cache_that_is_too_small_sets_answers_back_and_loses_nothing(executor_of, monkeypatch):
    set_back, count = Scheduler._set_back, itertools.count()
    monkeypatch.setattr(Scheduler, "_set_back", lambda self, one: [next(count), set_back(self, one)])
    executor = executor_of("Qwen2", most_tokens=128)
    with running_engine(executor, capacity=16, context_tokens=128, step_tokens=24) as engine:
        together = answers_together(engine, [(prompt, LENGTH_12) for prompt in prompts()])
    for prompt, answer in zip(prompts(), together, strict=True):
        assert_most_probable(executor, "Qwen2", prompt, answer.ids)
    assert next(count) >= 1


def test_a_shared_beginning_is_computed_once(executor_of):
    with running_engine(executor_of("Llama")) as engine:
        first = read(engine.generate([*BEGINNING, 7], GREEDY)).completion.usage
        second = read(engine.generate([*BEGINNING, 8, 9], GREEDY)).completion.usage
    assert (first.prompt_tokens, first.cached_tokens) == (51, 0)
    assert (second.prompt_tokens, second.cached_tokens) == (52, 48)


def test_an_answer_is_part_of_the_next_prompts_beginning(executor_of):
    with running_engine(executor_of("Llama")) as engine:
        answer = read(engine.generate(prompts()[2], GREEDY)).ids
        usage = read(engine.generate([*prompts()[2], *answer, 3], GREEDY)).completion.usage
    assert usage.cached_tokens == 32


def test_the_same_seed_gives_the_same_answer_alone_and_in_a_batch(executor_of):
    random_choice = Sampling(
        temperature=1.2, top_p=0.95, top_k=60, presence_penalty=0.3, max_tokens=10, seed=77
    )
    tasks = [(prompt, random_choice) for prompt in prompts()]
    with running_engine(executor_of("Glm4"), capacity=32) as engine:
        together = [answer.ids for answer in answers_together(engine, tasks)]
        alone = [read(engine.generate(*task)).ids for task in tasks[::5]]
    assert alone == together[::5]
    assert len({tuple(ids) for ids in together[:16]}) > 8


def test_without_a_seed_answers_differ(executor_of):
    with running_engine(executor_of("Llama")) as engine:
        answers = [read(engine.generate([5], Sampling(temperature=2, max_tokens=10))).ids for _ in range(3)]
    assert answers[0] != answers[1] or answers[1] != answers[2]


def test_usage_counts_prompt_answer_and_steps():
    with running_engine(CountingExecutor(), step_tokens=4) as engine:
        answer = read(engine.generate(list(range(10)), Sampling(temperature=0, max_tokens=3)))
    usage = answer.completion.usage
    assert answer.ids == [10, 11, 12]
    # The prompt in chunks of 4, 4 and 2 gives the first token, each further token takes a step.
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.steps) == (10, 0, 3, 5)
    timings = answer.completion.timings
    assert 0 < timings.first_token_seconds <= timings.total_seconds


def test_an_answer_ends_at_an_end_token_that_is_not_said():
    with running_engine(CountingExecutor(), end_ids=frozenset({ord("d"), 3})) as engine:
        answer = read(engine.generate([ord("a")], Sampling(temperature=0)))
    assert (answer.text, answer.completion.reason) == ("bc", "stop")
    assert answer.completion.usage.completion_tokens == 2


def test_an_answer_ends_before_its_stop_string():
    with running_engine(CountingExecutor()) as engine:
        answer = read(engine.generate([ord("a")], Sampling(temperature=0, stop=("ef", "xyz"))))
        assert (answer.text, answer.completion.reason) == ("bcd", "stop")
        held = read(engine.generate([ord("a")], Sampling(temperature=0, stop=("def",), max_tokens=4)))
        assert (held.text, held.completion.reason) == ("bcde", "length")


def test_a_space_at_the_start_counts_where_a_text_goes_on():
    """Sentencepiece's decoders take one off, which is right only where the answer begins a text."""
    vocabulary = Vocabulary(VOCABULARY.tokens, lambda text: list(text.encode()), drops_first_space=True)
    with running_engine(CountingExecutor(), vocabulary=vocabulary) as engine:
        sampling = Sampling(temperature=0.0, max_tokens=3)
        assert read(engine.generate([ord(" ") - 1], sampling)).text == '!"'
        assert read(engine.generate([ord(" ") - 1], sampling, goes_on=True)).text == ' !"'


def test_an_answer_ends_where_the_context_does():
    with running_engine(CountingExecutor(), context_tokens=12) as engine:
        answer = read(engine.generate([1] * 10, Sampling(temperature=0)))
        assert (answer.ids, answer.completion.reason) == ([2, 3], "length")
        assert len(read(engine.generate([1] * 11, Sampling(temperature=0, max_tokens=9))).ids) == 1


def test_the_context_is_no_longer_than_the_cache():
    with running_engine(CountingExecutor(cache_blocks=3, block_tokens=4), context_tokens=1000) as engine:
        assert engine.context_tokens == 12
        answers = answers_together(engine, [([place] * 11, Sampling(temperature=0)) for place in range(6)])
        assert [answer.ids for answer in answers] == [[place + 1] for place in range(6)]


def test_a_prompt_that_leaves_no_room_is_refused_with_both_lengths():
    with running_engine(CountingExecutor(), context_tokens=12) as engine:
        for length in (12, 13, 5000):
            with pytest.raises(PromptTooLong, match=f"{length} tokens.* 11 "):
                next(engine.generate([1] * length, GREEDY))
        with pytest.raises(InvalidRequest, match="empty"):
            next(engine.generate([], GREEDY))


@pytest.mark.parametrize("id_", [-1, 50, 1 << 40])
def test_an_id_that_the_weights_do_not_know_is_refused_and_harms_no_neighbour(id_):
    with running_engine(CountingExecutor(), model_ids=50) as engine:
        healthy = engine.generate([1, 2], GREEDY)
        first_token(healthy)
        with pytest.raises(InvalidRequest, match="do not know"):
            next(engine.generate([1, id_], GREEDY))
        assert len([token for token in healthy if token.ids]) == GREEDY.max_tokens - 1


def test_closing_the_generator_takes_the_answer_out_before_the_next_step():
    executor = CountingExecutor(cache_blocks=MANY_BLOCKS)
    with running_engine(executor, context_tokens=ENDLESS) as engine:
        abandoned = [engine.generate([place + 1] * 30, Sampling(temperature=0)) for place in range(3)]
        for generator in abandoned:
            first_token(generator)
        for generator in abandoned:
            generator.close()
        executor.batches.clear()
        # Whatever step was running while they were closed has ended before this one's first.
        read(engine.generate([200], Sampling(temperature=0, max_tokens=2)))
        assert_empty(engine)
        assert [len(batch.spans) for batch in executor.batches[-2:]] == [1, 1]
        assert sum(len(batch.spans) > 1 for batch in executor.batches) <= 1


def test_closed_answers_leave_nothing_behind_and_others_go_on(executor_of):
    with running_engine(executor_of("Llama"), capacity=8) as engine:
        kept = engine.generate(prompts()[5], LENGTH_12)
        abandoned = [engine.generate(prompt, Sampling(temperature=0)) for prompt in prompts()[6:12]]
        for generator in abandoned:
            first_token(generator)
            generator.close()
        assert read(kept).ids == read(engine.generate(prompts()[5], LENGTH_12)).ids


def test_closing_the_generator_of_a_waiting_answer_forgets_it():
    executor = CountingExecutor()
    with running_engine(executor, capacity=1) as engine:
        executor.gate.clear()
        first = engine.generate([1], Sampling(temperature=0, max_tokens=3))
        next(first)
        waiting = engine.generate([100], Sampling(temperature=0))
        assert next(waiting).is_empty
        waiting.close()
        executor.gate.set()
        assert len(read(first).ids) == 3
        assert all(100 not in batch.tokens for batch in executor.batches)
        read(engine.generate([1], GREEDY))


def test_a_reader_who_waits_is_given_empty_tokens():
    executor = CountingExecutor()
    with running_engine(executor) as engine:
        executor.gate.clear()
        generator = engine.generate([1], Sampling(temperature=0, max_tokens=1))
        assert [next(generator).is_empty for _ in range(3)] == [True] * 3
        executor.gate.set()
        assert read(generator).ids == [2]


def test_more_than_may_wait_are_refused():
    executor = CountingExecutor(cache_blocks=2)
    with running_engine(executor, capacity=1) as engine:
        executor.gate.clear()
        held = []
        while not is_overloaded(generator := engine.generate([len(held)], Sampling(max_tokens=1))):
            held.append(generator)
            assert len(held) < 20
        executor.gate.set()
        assert [len(read(generator).ids) for generator in held] == [1] * len(held)


def test_many_may_not_wait_behind_quick_steps_either():
    executor = CountingExecutor(cache_blocks=MANY_BLOCKS)
    with running_engine(executor, capacity=1, context_tokens=ENDLESS) as engine:
        running = engine.generate([0], Sampling(temperature=0))
        first_token(running)
        others = [engine.generate([1], GREEDY) for _ in range(40)]
        with ThreadPoolExecutor(len(others)) as readers:
            is_refused = list(readers.map(is_overloaded, others))
        assert sum(is_refused) >= 20
        running.close()
        accepted = [other for other, refused in zip(others, is_refused, strict=True) if not refused]
        assert [len(read_on(generator)) for generator in accepted] == [20] * len(accepted)


def is_overloaded(generator):
    try:
        next(generator)
    except Overloaded as refusal:
        return refusal.retry_after_seconds is not None
    return False


def test_a_step_that_fails_ends_its_answers_and_the_engine_lives_on(caplog):
    executor = CountingExecutor(cache_blocks=MANY_BLOCKS)
    with running_engine(executor, context_tokens=ENDLESS) as engine:
        held = [engine.generate([place], Sampling(temperature=0)) for place in range(3)]
        for generator in held:
            first_token(generator)
        executor.failure = RuntimeError("out of memory at 0x1234")
        for generator in held:
            with pytest.raises(ServingError, match="the model failed") as failure:
                read_on(generator)
            assert "0x1234" not in str(failure.value)
        assert "out of memory at 0x1234" in caplog.text
        assert read(engine.generate([7], Sampling(temperature=0, max_tokens=2))).ids == [8, 9]


@pytest.mark.parametrize("broken", ["engine.sequence.Sequence.begin", "engine.scheduler.Scheduler.add"])
def test_what_goes_wrong_outside_a_step_ends_answers_and_not_the_engine(monkeypatch, caplog, broken):
    def fail(*arguments):
        raise RuntimeError("that was not foreseen")

    with running_engine(CountingExecutor(cache_blocks=MANY_BLOCKS), context_tokens=ENDLESS) as engine:
        with monkeypatch.context() as once:
            once.setattr(broken, fail)
            with pytest.raises(ServingError, match="the model failed"):
                read(engine.generate([7], Sampling(temperature=0, max_tokens=2, choices=2)))
        assert "that was not foreseen" in caplog.text
        assert read(engine.generate([7], Sampling(temperature=0, max_tokens=2))).ids == [8, 9]


def read_on(generator):
    """Read the rest, the first token being read already."""
    return [id_ for token in generator for id_ in token.ids]


def test_stop_ends_every_answer_with_draining():
    executor = CountingExecutor()
    engine = engine_of(executor, capacity=1)
    engine.start()
    executor.gate.clear()
    readers = [engine.generate([place], Sampling(temperature=0)) for place in range(2)]
    for generator in readers:
        assert next(generator).is_empty
    stopping = Thread(target=engine.stop)
    stopping.start()
    assert engine._stopping.wait(DEADLINE_SECONDS)
    executor.gate.set()
    stopping.join(DEADLINE_SECONDS)
    assert not engine._thread.is_alive()
    for generator in [*readers, engine.generate([1], GREEDY)]:
        with pytest.raises(Draining):
            read_on(generator)


def test_rows_of_padding_behind_the_vocabulary_are_never_chosen():
    """Checkpoints often have more rows of logits than the tokenizer has ids."""
    executor = TorchExecutor(tiny_model("Qwen3"), 1 << 26, 2048)
    vocabulary = Vocabulary(VOCABULARY.tokens[:20], lambda text: list(text.encode()))
    with running_engine(executor, vocabulary=vocabulary) as engine:
        greedy = read(engine.generate([1, 2], Sampling(temperature=0, max_tokens=40)))
        hot = read(engine.generate([1, 2], Sampling(temperature=2, repetition_penalty=2, max_tokens=40)))
    assert max(greedy.ids + hot.ids) < 20


def test_the_reader_may_be_a_generator_of_a_generator():
    """Closing travels through `yield from`, as it does through a task."""
    executor = CountingExecutor(cache_blocks=MANY_BLOCKS)

    def outer(engine):
        return (yield from engine.generate([1], Sampling(temperature=0)))

    with running_engine(executor, context_tokens=ENDLESS) as engine:
        generator = outer(engine)
        first_token(generator)
        generator.close()
        read(engine.generate([9], GREEDY))


def test_many_readers_come_and_go():
    """Random arrivals and cancels in threads; whoever reads to the end reads their own answer."""
    with running_engine(CountingExecutor(cache_blocks=20), capacity=6, context_tokens=80) as engine:
        with ThreadPoolExecutor(6) as readers:
            list(readers.map(partial(come_and_go, engine), range(60)))
        read(engine.generate([1], GREEDY))


def come_and_go(engine, number):
    random = Random(number)
    prompt = [number] * random.randrange(1, 40)
    length = random.randrange(1, 20)
    generator = engine.generate(prompt, Sampling(temperature=0, max_tokens=length))
    if random.random() < 0.4:
        first_token(generator)
        generator.close()
    else:
        assert read(generator).ids == [(number + place) % 256 for place in range(1, length + 1)]
