"""Flags of older programs: each means a setting."""

import pytest

from settings import CLASSIC_PORTS, OLDER_FLAGS, PROJECT_FOLDER, SettingError, Settings, read_settings

PROGRAMS = ("serveapi", "LLMapis")


def read(*argv, environ=None, program="serveapi"):
    return read_settings(program, argv, environ or {})


def complaint(*argv, environ=None, program="serveapi"):
    with pytest.raises(SettingError) as caught:
        read(*argv, environ=environ, program=program)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("older", "modern"),
    [
        (["--port", "8765"], ["--listen", "127.0.0.1:8765"]),
        (["-P", "5178"], ["--listen", "127.0.0.1:5178"]),
        (["-H", "127.0.0.2"], ["--listen", "127.0.0.2:8080"]),
        (["--host", "::1", "-P5178"], ["--listen", "[::1]:5178"]),
        (["--batch_size", "4"], ["--capacity", "4"]),
        (["--name", "qwen", "--model", "/m/Qwen2.5-7B"], ["--model", "qwen=/m/Qwen2.5-7B"]),
        (["--name", "qwen", "--model", "qwen=/m/other"], ["--model", "qwen=/m/other"]),
        (["--name", "chatglm3"], ["--model", f"chatglm3={PROJECT_FOLDER}/models/demo"]),
        (["--name", "chatglm3", "--model", "scripted:a=b"], ["--model", "chatglm3=scripted:a=b"]),
        (["-q", "4"], ["--tier", "small"]),
        (["--quantize", "8"], ["--tier", "medium"]),
        (["-q16"], ["--tier", "large"]),
        (["-q", "0"], ["--tier", "large"]),
    ],
)
def test_an_older_flag_means_a_setting(older, modern, program):
    assert read(*older, program=program) == read(*modern, program=program)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--token_config", "t"], "--token-config belongs to a bmodel"),
        (["--dev_id", "0,1"], "--dev-id belongs to a bmodel"),
        (
            ["--bmodel", "x.bmodel", "--dev_id", "all"],
            "--dev_id on the command line must be numbers of chips",
        ),
        (["--port", "0"], "--port on the command line must be HOST:PORT with a port from 1 to 65535"),
        (["-H", "a b"], "--host on the command line must be HOST:PORT"),
        (["-H", "x", "-P", "y"], "--host and --port on the command line must be HOST:PORT"),
        (["--batch_size", "0"], "--batch_size on the command line must be a whole number from 1"),
        (["-q", "5"], "--quantize must be one of 4, 8, 16, 0, not '5'"),
        (["--name", "a b"], "--name must be up to 64 letters"),
        (["--port", "1", "--listen", "127.0.0.1:2"], "--port and --listen say the same"),
        (["-q", "4", "--tier", "small"], "--quantize and --tier say the same"),
        (["--batch_size", "4", "--capacity", "4"], "--batch_size and --capacity say the same"),
        (["--name", "a", "--model", "b=c"], "give the model two names"),
        (["--batch-size", "4"], "unrecognized arguments"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(argv, words, program):
    assert words in complaint(*argv, program=program)


def test_a_name_for_two_models_is_refused():
    assert "there are 2" in complaint("--name", "a", "--model", "b", "--model", "c")


def test_an_older_flag_wins_over_the_environment_as_the_command_line_does():
    environ = {"LECTERN_LISTEN": "127.0.0.1:9", "LECTERN_TIER": "large", "LECTERN_MODEL": "/m/one"}
    settings = read("-P", "5178", "-q", "4", "--name", "other", environ=environ)
    assert [str(address) for address in settings.listen] == ["127.0.0.1:5178"]
    assert settings.tier == "small"
    assert str(settings.model[0]) == "other=/m/one"


def test_an_older_flag_is_no_name_in_the_environment():
    assert "is no setting" in complaint(environ={"LECTERN_PORT": "5178"})


def test_listening_beyond_this_machine_needs_a_key_also_with_an_older_flag():
    assert "--api-key" in complaint("-H", "0.0.0.0", "-P", "5178")
    assert read("-H", "0.0.0.0", "--open").open


def test_programs_started_with_what_was_meant_read_the_same():
    settings = read("--name", "qwen", "-q", "4", "--port", "8765", "--batch_size", "4", "--classic-ports")
    assert read(*settings.arguments_for("serveapi")) == settings


def test_the_classic_ports_stand_beside_the_first_address():
    def ports(*argv):
        return [str(address) for address in read(*argv).addresses]

    assert ports() == ["127.0.0.1:8080"]
    assert ports("--classic-ports") == [f"127.0.0.1:{port}" for port in (8080, 5178, 8765, 5050, 5000)]
    several = ports("--listen", "[::1]:5050", "--listen", "127.0.0.1:80", "--classic-ports")
    assert several == ["[::1]:5050", "127.0.0.1:80", "[::1]:5178", "[::1]:8765", "[::1]:5000"]
    assert CLASSIC_PORTS == (5178, 8765, 5050, 5000)


def test_the_sockets_of_the_bus_do_not_depend_on_the_classic_ports():
    assert read("--classic-ports").bus_endpoints == Settings().bus_endpoints


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_shows_the_older_flags_in_a_group_of_their_own(program, capsys):
    with pytest.raises(SystemExit):
        read("--help", program=program)
    shown = capsys.readouterr().out
    group = shown[shown.index("\nFlags of older programs") :]
    assert all(one in group for older in OLDER_FLAGS.values() for one in older.flags)
