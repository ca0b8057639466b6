"""Models on other servers: how they are said, whose key is whose, and what each worker is told."""

import pytest

import serveapi
from settings import SettingError, Settings, Upstream, read_settings

OPENAI = "openai:http://127.0.0.1:8000/v1"
YUAN = "yuan:http://127.0.0.1:8000/yuan"


def read(*argv, program="serveapi", environ=None):
    return read_settings(program, argv, environ or {})


@pytest.mark.parametrize(
    ("text", "name", "place", "label"),
    [
        (OPENAI, "", OPENAI, "127.0.0.1:8000"),
        (f"far={OPENAI}#Qwen/Qwen2.5-7B", "far", f"{OPENAI}#Qwen/Qwen2.5-7B", "far"),
        ("openai:https://api.example.com", "", "openai:https://api.example.com", "api.example.com"),
        (f"{OPENAI}#Qwen/Qwen2.5-7B", "", f"{OPENAI}#Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        (YUAN, "", YUAN, "yuan"),
        (f"yuan2={YUAN}", "yuan2", YUAN, "yuan2"),
    ],
)
def test_an_upstream_has_a_kind_an_address_and_perhaps_a_name(text, name, place, label):
    settings = read("--upstream", text)
    assert settings.upstream == (Upstream(name, place),)
    assert settings.labels == (label,)
    assert str(settings.upstream[0]) == text


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000",
        "vllm:http://127.0.0.1",
        "openai:127.0.0.1:8000",
        "openai:ftp://127.0.0.1",
        "openai:http://",
        "openai:http://user:password@host/v1",
        "openai:http://host/v1?key=secret",
        "na/me=openai:http://host",
        "yuan:http://host/yuan#model",
        "",
    ],
)
def test_an_upstream_that_is_none_is_refused(text):
    with pytest.raises(SettingError, match="--upstream on the command line must be"):
        read("--upstream", text)


def test_an_upstream_takes_the_place_of_the_model_that_is_there_anyway():
    assert read("--upstream", OPENAI).model == ()
    assert [model.name for model in read("--upstream", OPENAI, "--model", "a=x").model] == ["a"]
    assert read().upstream == ()


def test_yuans_variable_stands_for_an_upstream_where_nothing_else_is_said():
    environ = {"YUAN_2_URL": "http://127.0.0.1:8000/yuan"}
    settings = read(environ=environ)
    assert (settings.upstream, settings.model) == ((Upstream("", YUAN),), ())
    assert read("--model", "a=x", environ=environ).upstream == ()
    assert read("--upstream", OPENAI, environ=environ).upstream == (Upstream("", OPENAI),)
    assert read(environ={"YUAN_2_URL": ""}).upstream == ()
    with pytest.raises(SettingError, match="YUAN_2_URL in the environment must be"):
        read(environ={"YUAN_2_URL": "localhost"})


def test_names_are_told_apart_over_models_and_upstreams():
    with pytest.raises(SettingError, match="uses a name twice"):
        read("--model", "a=x", "--upstream", f"a={OPENAI}")
    with pytest.raises(SettingError, match="a worker holds one model, not 2"):
        read("--model", "a=x", "--upstream", OPENAI, program="LLMapis")


def keys(*argv):
    settings = read(*argv)
    return [settings.keys_of(one) for one in settings.upstream]


def test_a_key_belongs_to_one_upstream():
    assert keys("--upstream", OPENAI, "--upstream-api-key", "abc==") == [("abc==",)]
    assert keys("--upstream", OPENAI, "--upstream", YUAN, "--upstream-api-key", "abc") == [("abc",), ()]
    both = ("--upstream", f"a={OPENAI}", "--upstream", f"b={OPENAI}")
    given = ("--upstream-api-key", "b=two==", "--upstream-api-key", "a=one")
    assert keys(*both, *given) == [("one",), ("two==",)]
    assert keys(*both, "--upstream-api-key", "a=one") == [("one",), ()]


@pytest.mark.parametrize(
    "argv",
    [
        ("--upstream", f"a={OPENAI}", "--upstream", f"b={OPENAI}", "--upstream-api-key", "whose"),
        ("--upstream", f"a={OPENAI}", "--upstream", f"b={OPENAI}", "--upstream-api-key", "c=whose"),
        ("--upstream", OPENAI, "--upstream-api-key", "one", "--upstream-api-key", "two"),
        ("--upstream", YUAN, "--upstream-api-key", "one"),
        ("--upstream-api-key", "one"),
    ],
)
def test_a_key_that_belongs_to_none_is_refused_and_not_shown(argv):
    with pytest.raises(SettingError, match="each key belongs to one upstream") as refused:
        read(*argv)
    assert "whose" not in str(refused.value)


def test_keys_are_never_shown():
    settings = read("--upstream", OPENAI, environ={"LECTERN_UPSTREAM_API_KEY": "very-secret"})
    assert "very-secret" not in repr(settings)
    assert "very-secret" not in " ".join(settings.arguments_for("LLMapis"))
    assert settings.environment_for("LLMapis", {})["LECTERN_UPSTREAM_API_KEY"] == "very-secret"


def test_each_worker_is_told_of_its_own_model_only():
    settings = read(
        *("--model", "a=x", "--workers", "2", "--upstream-pause-seconds", "7"),
        *("--upstream", f"b={OPENAI}", "--upstream", f"c={YUAN}", "--upstream-api-key", "b=secret"),
    )
    commands = {one.name: one for one in serveapi.worker_commands(settings)}
    assert list(commands) == ["worker a 1", "worker a 2", "worker b", "worker c"]
    for name, label in [("worker a 1", "a"), ("worker b", "b"), ("worker c", "c")]:
        _, _, *argv = commands[name].arguments
        environ = {key: text for key, text in commands[name].environ.items() if "LECTERN" in key}
        told = read_settings("LLMapis", argv, environ)
        assert told.labels == (label,)
        assert told.upstream_pause_seconds == 7
        assert ("secret" in str(environ)) == (label == "b")


def test_workers_do_not_read_yuans_variable_again(monkeypatch):
    monkeypatch.setenv("YUAN_2_URL", "http://127.0.0.1:8000/yuan")
    (command,) = serveapi.worker_commands(read("--model", str(Settings.model[0].path)))
    assert "YUAN_2_URL" not in command.environ
