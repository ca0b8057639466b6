"""What holds for every model, wherever it runs: in this process, as a script, or on another server."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema
import pytest

import LLMkernel
from contract import (
    CannotDo,
    ChatMessage,
    Choices,
    ChooseRows,
    Completion,
    JsonSchema,
    PromptTooLong,
    Sampling,
    WorkerLost,
)
from templates import Answer
from tests.tiny_checkpoints import write_checkpoint
from tests.workers.bmodels import stand_in, write_bmodel
from tests.workers.upstream.reading import read
from tests.workers.upstream.servers import YuanServer, lectern_over
from workers.local import load_local_model
from workers.placement import Board, Placement
from workers.scripted import ScriptedModel
from workers.sophon import load_sophon_model
from workers.upstream.kinds import KINDS
from workers.upstream.openai import OpenAIModel
from workers.upstream.opening import open_upstream
from workers.upstream.reach import Reach
from workers.upstream.yuan import YuanModel

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}

#: What a model that only follows a script has to be told to say, by a word of the question.
SCRIPT = {"schema": '{"colour": "red"}', "yes or no": "yes", "rows": '{"1": "光学"}'}

#: A value of each field of Sampling that is not its default.
UNUSUAL = Sampling(
    temperature=0.5,
    top_p=0.5,
    top_k=3,
    min_p=0.1,
    repetition_penalty=1.2,
    presence_penalty=0.5,
    frequency_penalty=0.5,
    logit_bias={5: 1.0},
    min_tokens=1,
    max_tokens=4,
    stop=("fox",),
    ignore_end=True,
    seed=5,
    choices=2,
    logprobs=1,
)


def script(messages):
    question = messages[-1].content
    return next((said for word, said in SCRIPT.items() if word in question), "the quick brown fox 你好 😀")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@contextmanager
def local(checkpoint):
    model = load_local_model(checkpoint, "tiny", Placement(device="cpu", threads=1, capacity=4))
    try:
        yield model
    finally:
        model.close()


@contextmanager
def scripted(checkpoint):
    yield ScriptedModel(script, context_tokens=512)


@contextmanager
def upstream_of(model, reach):
    with lectern_over(model) as (url, _):
        yield open_upstream(f"openai:{url}", "theirs", reach)


@contextmanager
def upstream_script(checkpoint):
    with upstream_of(ScriptedModel(script, context_tokens=512), Reach(context_tokens=512)) as model:
        yield model


@contextmanager
def upstream_local(checkpoint):
    with local(checkpoint) as model, upstream_of(model, Reach()) as upstream:
        yield upstream


@contextmanager
def upstream_in_words(checkpoint):
    """A server of which is known only that it speaks OpenAI's API, one choice at a time."""
    with lectern_over(ScriptedModel(script, context_tokens=512)) as (url, _):
        model = open_upstream(f"openai:{url}", "theirs", Reach())
        model._kind = KINDS["library"]
        capabilities = type(model.card.capabilities)(goes_on=False, cannot_sample=model._kind.cannot_sample)
        model._card = type(model.card)("theirs", "0", 512, capabilities)
        yield model


@contextmanager
def upstream_yuan(checkpoint):
    server = YuanServer(lambda prompt: script([ChatMessage("user", prompt)]), context_tokens=1024)
    with server.running() as url:
        yield open_upstream(f"yuan:{url}", "", Reach(context_tokens=1024))


@contextmanager
def tpu(checkpoint, **description):
    """A compiled checkpoint on a chip that is made of numpy."""
    with stand_in(), TemporaryDirectory() as folder:
        bmodel = write_bmodel(Path(folder, "tiny.bmodel"), checkpoint, context=256, **description)
        model = load_sophon_model(bmodel, "tiny", Board(checkpoint, (0,)), Placement(capacity=6))
        try:
            yield model
        finally:
            model.close()


@contextmanager
def tpu_in_chunks(checkpoint):
    with tpu(checkpoint, kind="stages") as model:
        yield model


@contextmanager
def tpu_without_logits(checkpoint):
    with tpu(checkpoint, logits=False) as model:
        yield model


MODELS = (
    local,
    scripted,
    upstream_script,
    upstream_local,
    upstream_in_words,
    upstream_yuan,
    tpu,
    tpu_in_chunks,
    tpu_without_logits,
)


@pytest.fixture(params=MODELS, ids=lambda make: make.__name__, scope="module")
def model(request, checkpoint):
    with request.param(checkpoint) as model:
        yield model


def ask(model, question="hello", form=None, **sampling):
    return model.generate([ChatMessage("user", question)], Sampling(**{"max_tokens": 24, **sampling}), form)


def test_an_answer_is_tokens_and_then_how_it_ended(model):
    places = {}
    answer = ask(model)
    while True:
        try:
            token = next(answer)
        except StopIteration as end:
            completion = end.value
            break
        assert token.index == len(places.setdefault(token.choice, []))
        places[token.choice] += token.ids
    assert isinstance(completion, Completion)
    assert len(completion.reasons) == 1
    assert completion.timings.total_seconds > 0


def test_an_answer_has_text(model):
    (text,), _ = read(ask(model, temperature=0))
    assert text.strip()


def test_choices_are_told_apart(model):
    texts, completion = read(ask(model, choices=3, max_tokens=8))
    assert len(completion.reasons) == len(texts) == 3
    assert all(texts)


def test_what_another_worker_has_said_is_gone_on_with_or_refused(model):
    messages, sampling = [ChatMessage("user", "hello")], Sampling(temperature=0, max_tokens=12, seed=1)
    tokens = [token for token in model.generate(messages, sampling) if not token.is_empty]
    ids = [id_ for token in tokens for id_ in token.ids]
    if not ids:
        with pytest.raises(WorkerLost):
            read(model.generate(messages, sampling, None, [(1, 2)]))
        return
    for count in (1, len(ids) // 2, len(ids)):
        again = [token for token in model.generate(messages, sampling, None, [ids[:count]]) if token.text]
        assert "".join(token.text for token in again) == "".join(token.text for token in tokens)


def test_a_stop_string_ends_the_answer(model):
    (whole,), _ = read(ask(model, temperature=0, seed=1))
    stop = whole[3:5]
    (text,), completion = read(ask(model, temperature=0, seed=1, stop=(stop,)))
    assert text == whole[: whole.index(stop)]
    assert completion.reason == "stop"


def test_many_ask_at_once(model):
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda number: read(ask(model, temperature=0))[0], range(6)))
    assert len({tuple(texts) for texts in answers}) == 1


def test_closing_an_answer_stops_it(model):
    for tokens in (0, 1, 2):
        answer = ask(model)
        for _ in range(tokens):
            next(answer, None)
        started = time.monotonic()
        answer.close()
        assert time.monotonic() - started < 1
    assert read(ask(model))[1].reasons


def test_every_field_of_sampling_is_followed_or_refused_by_name(model):
    usual = Sampling()
    for name in Sampling.__struct_fields__:
        value = getattr(UNUSUAL, name)
        assert value != getattr(usual, name)
        if name in model.card.capabilities.cannot_sample:
            with pytest.raises(CannotDo, match=rf"^{name}: "):
                read(ask(model, **{name: value}))
        else:
            fields = {"top_p": 1.0, name: value}
            assert len(read(ask(model, **fields))[1].reasons) == (2 if name == "choices" else 1)


def test_log_probabilities_spell_the_text(model):
    if "logprobs" in model.card.capabilities.cannot_sample:
        pytest.skip("this model tells none")
    tokens = list(ask(model, logprobs=2, max_tokens=6))
    told = [one for token in tokens for one in token.logprobs]
    spelled = b"".join(one.token for one in told).decode(errors="replace")
    assert "".join(token.text for token in tokens).strip() in spelled
    assert all(one.logprob <= 0 and len(one.top) == 2 for one in told)


def refused_for_a_form(model):
    """Whether the model keeps to no form at all; if so, it must say that."""
    if model.card.capabilities.constraints:
        return False
    with pytest.raises(CannotDo, match=r"^form: "):
        read(ask(model, form=Choices(("yes", "no"))))
    return True


@pytest.mark.parametrize("choices", [1, 2])
def test_rows_are_rows_and_nothing_else(model, choices):
    if refused_for_a_form(model):
        return
    values = ("光学", '力学 "一"', "a\\b")
    form = ChooseRows(values, 2, none_allowed=False)
    texts, _ = read(ask(model, "rows", form, max_tokens=200, choices=choices, temperature=1))
    for text in texts:
        answer = Answer(field="title", at_most=2, none_allowed=False)
        assert LLMkernel.chosen_values(text, values, answer)


def test_a_schema_is_kept(model):
    if refused_for_a_form(model):
        return
    form = JsonSchema(json.dumps(SCHEMA))
    (text,), _ = read(ask(model, "schema", form, max_tokens=200))
    jsonschema.validate(json.loads(text), SCHEMA)


def test_one_of_some_texts_is_chosen(model):
    if refused_for_a_form(model):
        return
    (text,), _ = read(ask(model, "yes or no", Choices(("yes", "no")), max_tokens=20))
    assert text in ("yes", "no")


def test_a_form_that_is_wrong_is_refused(model):
    if isinstance(model, ScriptedModel):
        pytest.skip("a script is not checked")
    with pytest.raises(CannotDo):
        read(ask(model, form=JsonSchema("{")))


def test_a_prompt_that_does_not_fit_is_refused(model):
    with pytest.raises(PromptTooLong):
        read(ask(model, "字 " * 5000))


def test_an_answer_goes_on_or_that_is_refused(model):
    messages = [ChatMessage("user", "hello"), ChatMessage("assistant", "the quick")]
    if model.card.capabilities.goes_on:
        with closing(model.generate(messages, Sampling(max_tokens=4, temperature=0))) as answer:
            assert not "".join(token.text for token in answer).startswith("the quick")
    else:
        with pytest.raises(CannotDo, match=r"^messages: "):
            next(model.generate(messages, Sampling()))


def test_tokens_are_counted_and_split_or_that_is_refused(model):
    short = model.count_tokens([ChatMessage("user", "hello")])
    long = model.count_tokens([ChatMessage("user", "hello " * 50)])
    assert 0 < short < long
    if isinstance(model, OpenAIModel | YuanModel):
        with pytest.raises(CannotDo, match=r"^text: "):
            model.split_tokens("hello there")
    else:
        assert "".join(model.split_tokens("hello there")) == "hello there"


def test_a_card_names_the_model(model):
    card = model.card
    assert card.name
    assert card.fingerprint
    assert card.context_tokens > 0
    assert set(card.capabilities.cannot_sample) < set(Sampling.__struct_fields__)
