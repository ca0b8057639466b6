"""A bmodel as a model: many answers at once on a chip of numpy, its limits, what keeps it from loading."""

import gc
import json
import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType

import pytest

from contract import (
    CannotDo,
    ChatMessage,
    ChooseRows,
    PredictOption,
    PromptTooLong,
    Sampling,
    ServingError,
)
from tests.engine.parts import assert_empty, first_token, read
from tests.tiny_checkpoints import write_checkpoint
from tests.workers.bmodels import KINDS, stand_in, write_bmodel
from workers.errors import CannotLoad
from workers.local import load_local_model
from workers.models import create_model
from workers.placement import Board, Placement
from workers.sophon import MOST_KEPT

GREEDY = Sampling(temperature=0, max_tokens=8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def chips():
    with stand_in() as chips:
        yield chips


@pytest.fixture
def load(checkpoint, tmp_path, chips):
    """Load a bmodel that is described; at the end nothing may be left in its engine."""

    @contextmanager
    def load(kind="static", *, capacity=4, ids=None, **description):
        path = write_bmodel(tmp_path / "tiny.bmodel", checkpoint, kind, **description)
        board = Board(checkpoint, ids or tuple(range(KINDS[kind].get("chips", 1))))
        model = create_model(str(path), "tiny", Placement(capacity=capacity), board=board)
        try:
            yield model
            assert_empty(model.engine)
        finally:
            model.close()

    return load


def say(text):
    return [ChatMessage("user", text)]


def ask(model, text, sampling=GREEDY, form=None):
    return read(model.generate(say(text), sampling, form))


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_says_what_the_checkpoint_says(load, checkpoint, kind):
    local = load_local_model(checkpoint, "tiny", Placement(device="cpu", threads=1, executor="torch"))
    want = [ask(local, text).ids for text in ("ab", "the quick brown fox")]
    local.close()
    with load(kind, number="f16") as model:
        assert [ask(model, text).ids for text in ("ab", "the quick brown fox")] == want


@pytest.mark.parametrize("kind", ["static", "stages", "shifted", "heads"])
def test_many_of_all_lengths_at_once_are_what_each_is_alone(load, kind):
    texts = ["x" * length for length in (1, 40, 7, 60, 13, 25)]
    with load(kind, capacity=3, number="f16") as model:
        alone = [ask(model, text).ids for text in texts]
        with ThreadPoolExecutor(len(texts)) as pool:
            assert list(pool.map(lambda text: ask(model, text).ids, texts)) == alone


def test_a_shared_prefix_is_copied_and_not_computed(load, chips):
    shared = "the quick brown fox jumps over "
    with load("history") as model:
        ask(model, f"{shared}one")
        before = len(chips[0].launches)
        second = ask(model, f"{shared}two", Sampling(temperature=0, max_tokens=1))
        launched = chips[0].launches[before:]
    assert second.completion.usage.cached_tokens >= 32
    assert launched.count("block_0") == 0
    assert launched.count("block_kv_0") == 1


def test_choices_share_their_prompt(load, chips):
    with load("history") as model:
        before = len(chips[0].launches)
        answer = model.generate(say("the quick brown fox"), Sampling(choices=3, max_tokens=4, seed=3))
        tokens = list(answer)
        launched = chips[0].launches[before:]
    assert {token.choice for token in tokens} == {0, 1, 2}
    assert launched.count("block_0") == 1


def test_a_prompt_is_computed_in_parts_where_the_bmodel_takes_a_history(load, chips):
    with load("history") as model:
        prompt = model.count_tokens(say("x" * 70))
        ask(model, "x" * 70, Sampling(temperature=0, max_tokens=1))
    assert prompt > 64
    assert "block_kv_0" in chips[0].launches
    assert "block_cache_0" not in chips[0].launches[: chips[0].launches.index("lm_head")]


def test_a_prompt_over_the_width_is_refused_with_both_numbers(load):
    with load("narrow") as model:
        tokens = model.count_tokens(say("x" * 60))
        with pytest.raises(PromptTooLong, match=rf"has {tokens} tokens; .* at most 48 at once"):
            ask(model, "x" * 60)
        assert len(ask(model, "x").ids) == 8


def test_a_prompt_over_the_context_is_refused_with_both_numbers(load):
    with load("history") as model, pytest.raises(PromptTooLong, match=r"has 2\d\d tokens; .* at most 127 "):
        ask(model, "x" * 200)


@pytest.mark.parametrize("kind", ["static", "stages", "shifted", "columns", "heads"])
def test_an_answer_ends_where_the_context_ends(load, kind):
    with load(kind, number="f16") as model:
        prompt = model.count_tokens(say("x" * 50))
        answer = ask(model, "x" * 50, Sampling(temperature=0, ignore_end=True))
    assert answer.completion.reason == "length"
    assert prompt + len(answer.ids) == 128


def test_leaving_in_the_middle_takes_the_sequence_out(load, chips):
    with load("history") as model:
        for text in ("ab", "cd"):
            answer = model.generate(say(text), Sampling(ignore_end=True))
            first_token(answer)
            answer.close()
        assert len(ask(model, "ef").ids) == 8


def test_memory_of_those_who_left_is_given_back_but_for_a_few(load, chips):
    with load("history", capacity=12) as model:
        idle = chips[0].used_bytes
        lane = model.engine.executor._lanes.lane_bytes
        texts = [f"{letter} to begin with, and then more" for letter in "abcdefghij"]
        with ThreadPoolExecutor(len(texts)) as pool:
            list(pool.map(lambda text: ask(model, text), texts))
        assert chips[0].used_bytes == idle + MOST_KEPT * lane
    gc.collect()
    assert chips[0].used_bytes == 0


def test_more_sequences_than_the_chip_has_room_for_take_turns(load, chips):
    with load() as model:
        chips[0].room_bytes = chips[0].used_bytes + 2 * model.engine.executor._lanes.lane_bytes
    del model
    gc.collect()
    with load(capacity=8) as model:
        assert model.engine.executor.lanes == 2
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda number: ask(model, f"{number}").ids, range(6)))
        assert answers == [ask(model, f"{number}").ids for number in range(6)]


def test_a_launch_that_fails_ends_its_answers_and_nothing_else(load, chips, caplog):
    with load("shifted") as model:
        want = ask(model, "abc").ids
        chips[0].broken = True
        with caplog.at_level(logging.CRITICAL), pytest.raises(ServingError):
            ask(model, "abcd")
        chips[0].broken = False
        assert ask(model, "abc").ids == want


def test_rows_and_options_are_chosen_where_there_are_logits(load):
    form = ChooseRows(("光学", "光学：光的性质", 'a "b" \\'), 2, none_allowed=False)
    with load("stages") as model:
        rows = ask(model, "ab", Sampling(temperature=1, seed=4), form)
        option = ask(model, "ab", Sampling(temperature=0), PredictOption(("A", "B", "C", "D")))
    assert set(json.loads(rows.text).values()) <= set(form.values)
    assert option.text[-1] in "ABCD"


def test_without_logits_greedy_chat_works_and_the_rest_is_refused_by_name(load):
    with load(number="f16") as model:
        want = ask(model, "abc").ids
    with load(number="f16", logits=False) as model:
        assert not model.card.capabilities.constraints
        assert ask(model, "abc").ids == want
        assert ask(model, "abc", Sampling(max_tokens=8)).ids == want
        for form in (ChooseRows(("a",), 1), PredictOption(("A", "B"))):
            with pytest.raises(CannotDo, match=r"^form: .*--do_sample"):
                ask(model, "abc", GREEDY, form)
        for field, value in {"temperature": 0.5, "presence_penalty": 1.0, "logprobs": 0}.items():
            with pytest.raises(CannotDo, match=rf"^{field}: "):
                ask(model, "abc", Sampling(**{field: value}))


def test_a_card_tells_what_the_bmodel_can_do(load, checkpoint):
    with load() as model:
        assert (model.card.name, model.card.context_tokens) == ("tiny", 128)
        first = model.card.fingerprint
    with load(number="f16") as model:
        assert model.card.fingerprint != first


def test_the_context_may_be_wished_smaller(checkpoint, tmp_path, chips):
    path = write_bmodel(tmp_path / "tiny.bmodel", checkpoint)
    model = create_model(
        str(path), "tiny", Placement(capacity=1, context_tokens=60), board=Board(checkpoint, (0,))
    )
    assert model.card.context_tokens == 60
    model.close()


def refusal(path, board, chips=None):
    with pytest.raises(CannotLoad) as refused:
        create_model(str(path), "tiny", Placement(capacity=2), board=board)
    line = str(refused.value)
    assert line.isprintable()
    assert str(path) in line
    return line


def test_the_tokenizer_is_found_beside_the_bmodel_or_asked_for(checkpoint, tmp_path, chips):
    path = write_bmodel(tmp_path / "tiny.bmodel", checkpoint)
    assert "name its folder with --token-config" in refusal(path, Board(None, (0,)))
    assert "is not a folder" in refusal(path, Board(tmp_path / "nowhere", (0,)))
    shutil.copytree(checkpoint, tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors"))
    model = create_model(str(path), "tiny", Placement(capacity=1), board=Board(None, (0,)))
    model.close()


def test_what_cannot_be_loaded_is_told_in_one_line(checkpoint, tmp_path, chips):
    board = Board(checkpoint, (0,))
    assert "there is no such file" in refusal(tmp_path / "nowhere.bmodel", board)
    broken = tmp_path / "broken.bmodel"
    broken.write_text("no net")
    assert "on chip 0: RuntimeError: EngineLLM bmodel error!" in refusal(broken, board)
    strange = write_bmodel(tmp_path / "strange.bmodel", checkpoint, missing=["embedding_cache"])
    assert "has no net embedding_cache, only block_0" in refusal(strange, board)
    chips[0].room_bytes = 1 << 18
    large = write_bmodel(tmp_path / "large.bmodel", checkpoint, context=512)
    assert "on chip 0: RuntimeError: no enough device memory" in refusal(large, board)


def without_sail(monkeypatch, module=None):
    monkeypatch.delitem(sys.modules, "sophon.sail", raising=False)
    monkeypatch.setitem(sys.modules, "sophon", module)


def test_without_sail_it_is_told_what_to_install(checkpoint, tmp_path, monkeypatch):
    path = write_bmodel(tmp_path / "tiny.bmodel", checkpoint)
    without_sail(monkeypatch)
    assert "install the wheel of the vendor's SDK" in refusal(path, Board(checkpoint, (0,)))


def test_an_empty_package_of_the_same_name_is_recognised(checkpoint, tmp_path, monkeypatch):
    path = write_bmodel(tmp_path / "tiny.bmodel", checkpoint)
    placeholder = ModuleType("sophon")
    placeholder.sail = ModuleType("sophon.sail")
    without_sail(monkeypatch, placeholder)
    assert "is an empty placeholder" in refusal(path, Board(checkpoint, (0,)))


def test_a_tokenizer_that_knows_more_than_the_bmodel_is_refused(checkpoint, tmp_path, chips):
    folder = shutil.copytree(checkpoint, tmp_path / "more")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    extra = {**tokenizer["added_tokens"][-1], "id": 267, "content": "<|more|>"}
    tokenizer["added_tokens"].append(extra)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    path = write_bmodel(tmp_path / "tiny.bmodel", checkpoint)
    assert "ids, but the bmodel knows only 267" in refusal(path, Board(folder, (0,)))
