"""Every setting: its default, its rule, who uses it and what it means."""

# ruff: noqa: RUF009 (what `setting` returns is a dataclasses.field, made anew each time)

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from settings import values
from settings.spec import ENVIRONMENT_PREFIX, Program, Spec, flag, setting, variable
from settings.values import Address, Chips, Memory, NamedModel, Upstream

#: Where clients of Yuan-2.0 look for its server, and so do we.
YUAN_VARIABLE = "YUAN_2_URL"

#: Ports on which older servers wait: my-chatglm2, the WebSocket question server, YuanChat, and the kernel of
#: ChatGlm4-Web-demo.
CLASSIC_PORTS = (5178, 8765, 5050, 5000)

#: How every program of ours writes a log line.
LOG_FORMAT = "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"


_BOTH: tuple[Program, ...] = ("serveapi", "LLMapis")
_GATEWAY: tuple[Program, ...] = ("serveapi",)
_WORKER: tuple[Program, ...] = ("LLMapis",)


@dataclass(frozen=True, repr=False)
class Settings:
    """Everything that can be set, checked; made by `read_settings`."""

    config: Path | None = setting(
        None, values.path, "General", _BOTH, "FILE", "read settings from this TOML file as well"
    )
    log_level: str = setting(
        "info",
        values.one_of("debug", "info", "warning", "error"),
        "General",
        _BOTH,
        "LEVEL",
        "how much to log: debug, info, warning or error",
    )
    chat: bool = setting(
        "false",
        values.switch,
        "General",
        _WORKER,
        "",
        "talk with the model in this terminal, without any gateway, instead of serving it",
    )
    listen: tuple[Address, ...] = setting(
        "127.0.0.1:8080",
        values.address,
        "Listening",
        _BOTH,
        "HOST:PORT",
        "address of the HTTP server; may be given several times. A worker finds a gateway on the "
        "same machine by the first port",
        repeatable=True,
    )
    classic_ports: bool = setting(
        "false",
        values.switch,
        "Listening",
        _GATEWAY,
        "",
        f"listen on the ports of older servers too, {', '.join(map(str, CLASSIC_PORTS))}, at the host of "
        "the first address",
    )
    gateways: int = setting(
        "1",
        values.whole(1, 64),
        "Listening",
        _BOTH,
        "N",
        "gateway processes that share the addresses; a worker dials each of them",
    )
    api_key: tuple[str, ...] = setting(
        None,
        values.api_key,
        "Listening",
        _GATEWAY,
        "KEY",
        "a key that requests must carry as 'Authorization: Bearer KEY'; may be given several times. "
        "Others on the machine can read a command line: prefer the environment or the config file",
        repeatable=True,
        secret=True,
    )
    open: bool = setting(
        "false",
        values.switch,
        "Listening",
        _GATEWAY,
        "",
        "allow listening beyond this machine without an API key: anybody who reaches it may use it",
    )
    body_bytes: int = setting(
        "1048576", values.whole(1024, 2**30), "Limits", _GATEWAY, "BYTES", "largest body of a request"
    )
    task_seconds: int = setting(
        "600", values.whole(1, 86_400), "Limits", _GATEWAY, "SECONDS", "longest time that a request may take"
    )
    streams: int = setting(
        "1024",
        values.whole(1, 100_000),
        "Limits",
        _GATEWAY,
        "N",
        "tasks that one gateway process runs at the same time; above that it answers 503",
    )
    workers: int = setting(
        "1",
        values.whole(0, 64),
        "Models",
        _GATEWAY,
        "N",
        "workers to start per model; 0 starts the gateway alone, for workers that LLMapis.py starts",
    )
    model: tuple[NamedModel, ...] = setting(
        "models/demo",
        values.model,
        "Models",
        _BOTH,
        "[NAME=]PATH",
        "folder of a Hugging Face checkpoint, and the name that requests use (the folder's name if left "
        "out); serveapi.py takes several, LLMapis.py one. 'scripted:[SECONDS:]TEXT' always answers TEXT, "
        "with a pause before each token, for tests and for work on a front end",
        repeatable=True,
    )
    device: str = setting(
        "auto",
        values.one_of("auto", "cpu", "cuda"),
        "Models",
        _BOTH,
        "DEVICE",
        "where a model runs: auto (a GPU if there is one), cpu or cuda",
    )
    threads: int = setting(
        "0",
        values.whole(0, 1024),
        "Models",
        _BOTH,
        "N",
        "CPU threads that a model computes with; 0 takes all cores",
    )
    tier: Literal["auto", "large", "medium", "small"] = setting(
        "auto",
        values.one_of("auto", "large", "medium", "small"),
        "Models",
        _BOTH,
        "TIER",
        "bits of a model's weights: large (16), medium (8), small (4), or auto: the largest that fits",
    )
    executor: Literal["auto", "native", "torch"] = setting(
        "auto",
        values.one_of("auto", "native", "torch"),
        "Models",
        _BOTH,
        "EXECUTOR",
        "what computes a model on a CPU: native (a step in C++ for common architectures), torch (any "
        "model), or auto: native where processor and model allow it",
    )
    memory: Memory | None = setting(
        "auto",
        values.memory,
        "Models",
        _BOTH,
        "SIZE",
        "memory that one worker may use for weights, computing and cache together, such as 8GB or 512MiB; "
        "auto takes a share of what is free when the worker starts",
    )
    context_tokens: int = setting(
        "0",
        values.whole(0, 2**24),
        "Models",
        _BOTH,
        "TOKENS",
        "longest prompt plus answer; 0 takes what the model was made for",
    )
    capacity: int = setting(
        "64",
        values.whole(1, 10_000),
        "Models",
        _BOTH,
        "N",
        "tasks that a worker holds at most, running and waiting; a fuller one refuses",
    )
    bmodel: NamedModel | None = setting(
        None,
        values.bmodel,
        "Models on Sophon TPUs",
        _BOTH,
        "[NAME=]FILE",
        "compiled net of a language model to run on a TPU, and the name that requests use (the file's name "
        "if left out); it takes the place of the default of --model. More in docs/sophon.md",
    )
    token_config: Path | None = setting(
        None,
        values.path,
        "Models on Sophon TPUs",
        _BOTH,
        "FOLDER",
        "folder of the bmodel's tokenizer; if left out, the folder 'config' beside the bmodel, where the "
        "compiler puts it",
    )
    dev_id: Chips = setting(
        "0",
        values.chips,
        "Models on Sophon TPUs",
        _BOTH,
        "N[,N…]",
        "chips to run the bmodel on: 0,1 starts a worker on each of the two, 0+1 one worker on both, for a "
        "bmodel that is compiled for two",
    )
    upstream: tuple[Upstream, ...] = setting(
        None,
        values.upstream,
        "Models on other servers",
        _BOTH,
        "[NAME=]KIND:URL",
        "serve a model of another server: openai:URL[#MODEL] for any with OpenAI's API (vLLM, SGLang, "
        "llama.cpp, Ollama, another Lectern), yuan:URL for a Yuan-2.0 inference server; may be given several "
        "times, and takes the place of the default of --model. YUAN_2_URL=URL in the environment stands for "
        "yuan:URL where neither is said",
        repeatable=True,
    )
    upstream_api_key: tuple[str, ...] = setting(
        None,
        values.upstream_key,
        "Models on other servers",
        _BOTH,
        "[NAME=]KEY",
        "the API key that an upstream wants; with several upstreams, NAME says whose it is. Others on the "
        "machine can read a command line: prefer the environment or the config file",
        repeatable=True,
        secret=True,
    )
    upstream_connect_seconds: int = setting(
        "5",
        values.whole(1, 3600),
        "Models on other servers",
        _BOTH,
        "SECONDS",
        "longest time for a connection to an upstream",
    )
    upstream_first_token_seconds: int = setting(
        "300",
        values.whole(1, 86_400),
        "Models on other servers",
        _BOTH,
        "SECONDS",
        "longest time from a request to an upstream to its first token; a Yuan-2.0 server sends all at once",
    )
    upstream_pause_seconds: int = setting(
        "60",
        values.whole(1, 86_400),
        "Models on other servers",
        _BOTH,
        "SECONDS",
        "longest time from one token of an upstream to the next",
    )
    database: str = setting(
        "sqlite:///var/catalogue.db",
        values.database,
        "Template tasks",
        _BOTH,
        "URL",
        "database that template tasks read: sqlite:///FILE, mariadb://USER:PASSWORD@HOST/NAME or "
        "postgresql://…; the default is made and filled with 25 books at the first start",
        secret=True,
    )
    templates: Path = setting(
        "templates",
        values.path,
        "Template tasks",
        _BOTH,
        "FOLDER",
        "folder of the template tasks: their files in tasks/, the prompts in prompts/",
    )
    bus: str | None = setting(
        None,
        values.bus_base,
        "Between gateways and workers",
        _BOTH,
        "tcp://HOST:PORT",
        "where gateways wait for workers: the first gateway process takes PORT, the next PORT+1 and so on. "
        "If left out, sockets in a private folder on this machine",
    )
    bus_key_file: Path | None = setting(
        None,
        values.path,
        "Between gateways and workers",
        _BOTH,
        "FILE",
        "file of the keys that gateways and workers know each other by, needed beyond this machine; "
        "serveapi.py writes it if it is not there",
    )
    dial: tuple[str, ...] = setting(
        None,
        values.endpoint,
        "Between gateways and workers",
        _WORKER,
        "ENDPOINT",
        "endpoint of a gateway process, tcp://HOST:PORT or ipc:///PATH; may be given several times. "
        "If left out, it follows from --bus, --gateways and --listen",
        repeatable=True,
    )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the HTTP server listens: as told, and on the classic ports if they are wanted."""
        if not self.classic_ports:
            return self.listen
        host = self.listen[0].host
        return tuple(dict.fromkeys((*self.listen, *(Address(host, port) for port in CLASSIC_PORTS))))

    @property
    def bus_endpoints(self) -> tuple[str, ...]:
        """One endpoint per gateway process, in the order of the processes."""
        if self.bus is None:
            folder, port = socket_folder(), self.listen[0].port
            return tuple(f"ipc://{folder}/{port}-{index}.ipc" for index in range(self.gateways))
        first = Address.parse(self.bus.removeprefix("tcp://"))
        return tuple(f"tcp://{Address(first.host, first.port + index)}" for index in range(self.gateways))

    @property
    def dial_endpoints(self) -> tuple[str, ...]:
        """What a worker dials; a gateway that binds every interface is dialled on this machine."""
        return self.dial or tuple(
            endpoint.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
            for endpoint in self.bus_endpoints
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """What the models are called on this machine, those of other servers last."""
        models = self.model if self.bmodel is None else (*self.model, self.bmodel)
        return (*(one.name for one in models), *(one.label for one in self.upstream))

    def keys_of(self, upstream: Upstream) -> tuple[str, ...]:
        """The API key of an upstream: the one under its name, or all if no other upstream takes one."""
        takers = [one for one in self.upstream if one.takes_key]
        named = upstream.keys_among(self.upstream_api_key)
        return named or (self.upstream_api_key if takers == [upstream] else ())

    @property
    def has_default_database(self) -> bool:
        return self.database == Settings.database

    def arguments_for(self, program: Program) -> list[str]:
        """Return a command line that gives `program` these settings, all but the secret ones."""
        arguments: list[str] = []
        for name, spec in specs(program).items():
            value = getattr(self, name)
            if spec.secret or name == "config" or value == getattr(Settings, name):
                continue
            values = value if spec.repeatable else (value,)
            arguments += [flag(name)] if spec.is_switch else [f"{flag(name)}={one}" for one in values]
        return arguments

    def environment_for(self, program: Program, environ: Mapping[str, str]) -> dict[str, str]:
        """Return `environ` with our own names replaced by the secret settings of `program`."""
        own = {
            name: text
            for name, text in environ.items()
            if not name.startswith(ENVIRONMENT_PREFIX) and name != YUAN_VARIABLE
        }
        for name, spec in specs(program).items():
            value = getattr(self, name)
            if spec.secret and value != getattr(Settings, name):
                own[variable(name)] = ",".join(value) if spec.repeatable else str(value)
        return own

    def __repr__(self) -> str:
        shown = (f"{name}={spec.show(getattr(self, name))}" for name, spec in specs().items())
        return f"Settings({', '.join(shown)})"


def specs(program: Program | None = None) -> dict[str, Spec]:
    """Return the settings by name, all or those that `program` uses."""
    every: dict[str, Spec] = {one.name: one.metadata["spec"] for one in fields(Settings)}
    return {name: spec for name, spec in every.items() if program is None or program in spec.programs}


def socket_folder() -> Path:
    """Return the folder of this user's sockets; it is made when a gateway starts, for its owner alone."""
    return Path(tempfile.gettempdir(), f"lectern-{os.getuid()}")
