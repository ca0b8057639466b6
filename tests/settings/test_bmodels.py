"""Bmodels: how they are said, with today's flags and older ones, and which worker gets which chips."""

import pytest

import serveapi
from settings import Chips, SettingError, Settings, read_settings


def read(*argv, program="serveapi", environ=None):
    return read_settings(program, argv, environ or {})


def complaint(*argv, program="serveapi", environ=None):
    with pytest.raises(SettingError) as caught:
        read(*argv, program=program, environ=environ)
    return str(caught.value)


def test_a_bmodel_takes_the_place_of_the_model_that_is_there_anyway():
    settings = read("--bmodel", "/m/qwen3.bmodel")
    assert settings.model == ()
    assert settings.labels == ("qwen3",)
    assert str(settings.bmodel) == "qwen3=/m/qwen3.bmodel"
    assert (settings.token_config, settings.dev_id) == (None, Chips(((0,),)))
    assert read("--bmodel", "a=/m/qwen3.bmodel", "--model", "b=/m/b").labels == ("b", "a")


@pytest.mark.parametrize("program", ["serveapi", "LLMapis"])
def test_the_older_servers_flags_mean_the_same(program):
    older = read("--bmodel", "x.bmodel", "--token_config", "/t", "--dev_id", "3", program=program)
    assert older == read("--bmodel", "x.bmodel", "--token-config", "/t", "--dev-id", "3", program=program)
    assert older == read("--bmodel", "x.bmodel", "--token", "/t", "--dev_id=3", program=program)


def test_a_name_of_its_own():
    assert read("--name", "chatglm3", "--bmodel", "/m/x.bmodel").labels == ("chatglm3",)
    assert read("--bmodel", "chatglm3=/m/x.bmodel").labels == ("chatglm3",)
    assert "there are 2" in complaint("--name", "a", "--bmodel", "x.bmodel", "--model", "y")


@pytest.mark.parametrize(
    ("text", "groups"),
    [("0", ((0,),)), ("0,1,5", ((0,), (1,), (5,))), ("0+1", ((0, 1),)), ("0+1,2+3", ((0, 1), (2, 3)))],
)
def test_chips_have_a_worker_each_or_share_one(text, groups):
    settings = read("--bmodel", "x.bmodel", "--dev-id", text)
    assert settings.dev_id == Chips(groups)
    assert str(settings.dev_id) == text
    assert read("--bmodel", "x.bmodel", environ={"LECTERN_DEV_ID": text}) == settings


def test_each_worker_gets_its_own_chips_and_other_models_none():
    settings = read(
        "--bmodel", "a=/m/x.bmodel", "--token-config", "/t", "--dev-id", "0,2+3", "--model", "b=/m/b"
    )
    commands = {one.name: one.arguments[2:] for one in serveapi.worker_commands(settings)}
    assert list(commands) == ["worker b", "worker a chip 0", "worker a chip 2+3"]
    told = {name: read(*arguments, program="LLMapis") for name, arguments in commands.items()}
    assert [told[name].dev_id.groups for name in commands] == [((0,),), ((0,),), ((2, 3),)]
    assert [told[name].labels for name in commands] == [("b",), ("a",), ("a",)]
    assert [told[name].bmodel is None for name in commands] == [True, False, False]
    assert str(told["worker a chip 0"].token_config) == "/t"


def test_one_bmodel_on_one_chip_has_one_worker_however_many_are_wanted():
    settings = read("--bmodel", "x.bmodel", "--workers", "3")
    assert [one.name for one in serveapi.worker_commands(settings)] == ["worker"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--bmodel", "folder"], "must be [NAME=]FILE"),
        (["--bmodel", "scripted:x.bmodel"], "must be [NAME=]FILE"),
        (["--bmodel", "x.bmodel", "--dev-id", "a"], "must be numbers of chips"),
        (["--bmodel", "x.bmodel", "--dev-id", "0,"], "must be numbers of chips"),
        (["--bmodel", "x.bmodel", "--dev-id", "0,0"], "must not name a chip twice"),
        (["--bmodel", "x.bmodel", "--dev-id", "0+1,1"], "must not name a chip twice"),
        (["--dev-id", "1"], "--dev-id belongs to a bmodel"),
        (["--token_config", "/t"], "--token-config belongs to a bmodel"),
        (["--bmodel", "x.bmodel", "--dev_id", "0", "--dev-id", "1"], "say the same"),
        (["--bmodel", "a=x.bmodel", "--model", "a=y"], "tell them apart"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(argv, words):
    line = complaint(*argv)
    assert words in line
    assert "\n" not in line


def test_a_single_worker_takes_one_group_of_chips():
    assert "is for several workers" in complaint("--bmodel", "x.bmodel", "--dev-id", "0,1", program="LLMapis")
    assert read("--bmodel", "x.bmodel", "--dev-id", "0+1", "--chat", program="LLMapis").chat
    assert "holds one model" in complaint("--bmodel", "x.bmodel", "--model", "y", program="LLMapis")
    assert Settings().bmodel is None
