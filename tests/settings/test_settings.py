import pytest

from gateway.limits import Limits
from settings import PROJECT_FOLDER, Memory, SettingError, Settings, read_settings, specs, variable


def read(*argv, environ=None, program="serveapi"):
    return read_settings(program, argv, environ or {})


def complaint(*argv, environ=None, program="serveapi"):
    with pytest.raises(SettingError) as caught:
        read(*argv, environ=environ, program=program)
    return str(caught.value)


@pytest.fixture
def config(tmp_path):
    """Write a config file and return its path."""

    def write(text):
        path = tmp_path / "lectern.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_without_any_source_the_defaults_hold():
    settings = read()
    assert settings == Settings()
    assert [str(address) for address in settings.listen] == ["127.0.0.1:8080"]
    assert [str(model) for model in settings.model] == [f"demo={PROJECT_FOLDER}/models/demo"]
    assert settings.database == f"sqlite:///{PROJECT_FOLDER}/var/catalogue.db"
    assert settings.templates == PROJECT_FOLDER / "templates"


def test_command_line_wins_over_environment_over_file_over_default(config):
    path = config("gateways = 2\ncapacity = 2\nworkers = 2\n")
    environ = {"LECTERN_GATEWAYS": "3", "LECTERN_CAPACITY": "3"}
    settings = read("--config", path, "--gateways", "4", environ=environ)
    assert (settings.gateways, settings.capacity, settings.workers) == (4, 3, 2)
    assert settings.threads == 0


def test_the_environment_may_name_the_config_file(config):
    assert read(environ={"LECTERN_CONFIG": config("workers = 5")}).workers == 5


def test_several_values_come_repeated_with_commas_or_as_an_array(config):
    wanted = ("first-key", "other-key")
    assert read("--api-key", wanted[0], "--api-key", wanted[1]).api_key == wanted
    assert read(environ={"LECTERN_API_KEY": ",".join(wanted)}).api_key == wanted
    assert read("--config", config('api_key = ["first-key", "other-key"]')).api_key == wanted


def test_relative_paths_count_from_the_source(config, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = config('templates = "here"\nmodel = ["m=weights"]\ndatabase = "sqlite:///books.db"')
    settings = read("--config", path)
    assert settings.templates == tmp_path / "here"
    assert settings.model[0].path == str(tmp_path / "weights")
    assert settings.database == f"sqlite:///{tmp_path}/books.db"
    assert read("--templates", "here").templates == elsewhere / "here"


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("/models/glm-4-9b", "glm-4-9b", "/models/glm-4-9b"),
        ("big=/models/glm-4-9b", "big", "/models/glm-4-9b"),
        ("/models/a=b", "a-b", None),
        ("scripted:hello = world", "scripted", "scripted:hello = world"),
        ("echo=scripted:0.1:hello", "echo", "scripted:0.1:hello"),
    ],
)
def test_a_model_is_named_by_its_folder_or_as_told(text, name, path):
    if path is None:
        assert "must be [NAME=]PATH" in complaint("--model", text)
    else:
        (model,) = read("--model", text).model
        assert (model.name, model.path) == (name, path)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("8GB", 8 * 10**9),
        ("7.5 GiB", 15 << 29),
        ("512MiB", 512 << 20),
        ("512mb", 512 * 10**6),
        ("2TB", 2 * 10**12),
        ("64KiB", 64 << 10),
        ("1024B", 1024),
    ],
)
def test_an_amount_of_memory_has_a_unit(text, size_bytes):
    for program in ("serveapi", "LLMapis"):
        assert read("--memory", text, program=program).memory == Memory(size_bytes)


def test_memory_and_tier_are_left_to_measurement_by_default():
    settings = read("--memory", "auto", "--tier", "auto")
    assert (settings.memory, settings.tier) == (None, "auto")
    assert settings == Settings()


def test_unknown_names_are_errors_everywhere(config):
    assert "LECTERN_WORKER in the environment is no setting" in complaint(environ={"LECTERN_WORKER": "1"})
    assert "worker in" in complaint("--config", config("worker = 1"))
    assert "--worker" in complaint("--worker", "1")
    assert "config in" in complaint("--config", config('config = "other.toml"'))


def test_names_of_others_in_the_environment_are_left_alone():
    assert read(environ={"PATH": "/bin", "MODEL": "x"}) == Settings()


def test_a_worker_accepts_the_gateways_names_in_shared_sources(config):
    environ = {"LECTERN_API_KEY": "long-enough", "LECTERN_WORKERS": "3"}
    assert read(environ=environ, program="LLMapis").workers == 3
    assert "--workers" in complaint("--workers", "3", program="LLMapis")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--gateways", "0"], "--gateways on the command line must be a whole number from 1 to 64, not '0'"),
        (["--workers", "-1"], "--workers"),
        (["--threads", "two"], "--threads on the command line must be a whole number"),
        (
            ["--tier", "huge"],
            "--tier on the command line must be one of auto, large, medium, small, not 'huge'",
        ),
        (["--memory", "8"], "--memory on the command line must be auto, or a size such as 8GB"),
        (["--memory", "0GB"], "--memory"),
        (["--memory", "-1GB"], "--memory"),
        (["--memory", "8 parsec"], "--memory"),
        (["--device", "tpu"], "--device on the command line must be one of auto, cpu, cuda, not 'tpu'"),
        (["--listen", "8080"], "--listen on the command line must be HOST:PORT"),
        (["--listen", "127.0.0.1:0"], "a port from 1 to 65535"),
        (["--listen", "127.0.0.1:65536"], "a port from 1 to 65535"),
        (["--listen", "localhost:１２"], "must be HOST:PORT"),
        (["--database", "books.db"], "--database on the command line must be a URL"),
        (["--bus", "ipc:///tmp/x"], "--bus on the command line must be tcp://HOST:PORT"),
        (["--model", ""], "--model"),
        (["--model", "a=x", "--model", "a=y"], "--model uses a name twice"),
        (["--listen", "[::1]:8080", "--listen", "[::1]:8080"], "the same address twice"),
        (["--bus", "tcp://127.0.0.1:65535", "--gateways", "2"], "leaves no port for 2 gateways"),
        (["--config", "/nowhere/lectern.toml"], "cannot be read: No such file"),
    ],
)
def test_a_broken_rule_is_told_with_source_setting_and_rule(argv, words):
    assert words in complaint(*argv)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = 1.5", "workers in"),
        ("workers = [1, 2]", "takes one value"),
        ("workers = {a = 1}", "must be a whole number"),
        ("open = 1", "must be one of true, false"),
        ("workers = ", "is not TOML"),
    ],
)
def test_a_config_file_of_wrong_types_is_told(config, text, words):
    assert words in complaint("--config", config(text))


def test_a_config_file_that_is_no_text_is_told(tmp_path):
    path = tmp_path / "lectern.toml"
    path.write_bytes(b"\xff\xfe")
    assert "is not TOML" in complaint("--config", str(path))


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:8080", "example.org:80"])
def test_listening_beyond_this_machine_needs_a_key_or_a_clear_word(address):
    assert "--api-key" in complaint("--listen", address)
    assert read("--listen", address, "--open").open
    assert read("--listen", address, environ={"LECTERN_API_KEY": "long-enough"}).api_key == ("long-enough",)
    assert read("--listen", address, program="LLMapis").listen


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.9.1:80", "[::1]:80", "localhost:80"])
def test_listening_on_this_machine_needs_no_key(address):
    assert [str(one) for one in read("--listen", address).listen] == [address]


def test_a_bus_beyond_this_machine_needs_a_key_file():
    assert "--bus-key-file" in complaint("--bus", "tcp://0.0.0.0:9000")
    assert "--bus-key-file" in complaint("--dial", "tcp://10.0.0.1:9000", program="LLMapis")
    assert read("--bus", "tcp://0.0.0.0:9000", "--bus-key-file", "bus.toml").bus == "tcp://0.0.0.0:9000"


def test_each_gateway_process_has_an_endpoint_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = read("--gateways", "2", "--listen", "127.0.0.1:8123", "--listen", "127.0.0.1:8124")
    folder = next(tmp_path.parent.glob(tmp_path.name))
    first, second = settings.bus_endpoints
    assert first.startswith(f"ipc://{folder}/lectern-")
    assert first.endswith("/8123-0.ipc")
    assert second.endswith("/8123-1.ipc")
    assert settings.dial_endpoints == settings.bus_endpoints


def test_the_bus_over_tcp_takes_a_port_for_each_gateway_process():
    settings = read("--gateways", "2", "--bus", "tcp://0.0.0.0:9000", "--bus-key-file", "k")
    assert settings.bus_endpoints == ("tcp://0.0.0.0:9000", "tcp://0.0.0.0:9001")
    assert settings.dial_endpoints == ("tcp://127.0.0.1:9000", "tcp://127.0.0.1:9001")


def test_a_path_too_long_for_a_socket_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", f"{tmp_path}/{'x' * 100}")
    assert "TMPDIR" in complaint()


def test_a_worker_holds_one_model():
    assert "one model" in complaint("--model", "a=x", "--model", "b=y", program="LLMapis")


def test_no_secret_is_ever_shown():
    settings = read(
        "--api-key", "first-key", "--database", "mariadb://reader:s3/cr@t@host/library?ssl_password=hidden"
    )
    for secret in ("first-key", "s3", "cr@t", "hidden"):
        assert secret not in repr(settings)
    assert "mariadb://reader:***@" in repr(settings)


@pytest.mark.parametrize("environ", [{"LECTERN_API_KEY": "s3c,ret"}, {"LECTERN_DATABASE": "s3cret"}])
def test_a_wrong_secret_is_not_repeated(environ):
    assert "s3c" not in complaint(environ=environ)


def test_a_program_started_with_rendered_settings_reads_the_same():
    settings = read(
        *("--listen", "[::1]:8123", "--gateways", "2", "--model", "a=/m/x y", "--model", "scripted:-hi, you"),
        *("--api-key", "first-key", "--api-key", "other-key", "--open", "--capacity", "3"),
        *("--memory", "7.5GiB", "--tier", "small"),
        *("--database", "mariadb://reader:secret@host/library"),
    )
    arguments = settings.arguments_for("serveapi")
    environ = settings.environment_for("serveapi", {"PATH": "/bin", "LECTERN_CAPACITY": "9"})
    assert not any("key" in one or "secret" in one for one in arguments)
    assert environ["PATH"] == "/bin"
    assert read(*arguments, environ=environ) == settings


def test_rendered_settings_hold_only_what_the_program_uses():
    arguments = read("--workers", "3", "--streams", "7").arguments_for("LLMapis")
    assert arguments == []


def test_every_default_keeps_its_own_rule():
    texts = {variable(name): spec.default for name, spec in specs().items() if spec.default is not None}
    relative = {"LECTERN_MODEL", "LECTERN_DATABASE", "LECTERN_TEMPLATES"}
    assert read(environ={name: text for name, text in texts.items() if name not in relative}) == Settings()


def test_the_gateways_limits_are_the_same_without_settings():
    settings, limits = Settings(), Limits()
    assert (settings.body_bytes, settings.task_seconds) == (limits.body_bytes, limits.task_seconds)
    assert settings.streams == limits.streams


@pytest.mark.parametrize("program", ["serveapi", "LLMapis"])
def test_help_names_every_setting_of_the_program_and_no_other(program, capsys):
    with pytest.raises(SystemExit) as ended:
        read("--help", program=program)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    flags = {word for word in shown.replace(",", " ").split() if word.startswith("--")}
    own = {"--" + name.replace("_", "-") for name in specs(program)}
    assert own <= flags
    assert not flags & ({"--" + name.replace("_", "-") for name in specs()} - own - {"--api-key"})
