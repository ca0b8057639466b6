"""Where settings come from: command line, environment and config file, in this order of weight."""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from settings.checks import check
from settings.older_flags import OLDER_FLAGS, rename, translate
from settings.settings import YUAN_VARIABLE, Settings, specs
from settings.spec import ENVIRONMENT_PREFIX, Program, Spec, flag, variable
from settings.values import SettingError

_PURPOSE: dict[Program, str] = {
    "serveapi": "Serve language models over HTTP: a gateway, and beside it the workers that hold models.",
    "LLMapis": "Start one worker by hand: load a model and serve it to gateways that already run; "
    "or, with --chat, talk with it.",
}
_EPILOG = (
    "Each setting may also stand in the environment (--api-key is LECTERN_API_KEY there; commas separate "
    'several values) or in a TOML file given with --config (api_key = ["…"] there). The command line wins '
    "over the environment, that over the file, that over the default. More in docs/settings.md."
)


@dataclass(frozen=True)
class Said:
    """A setting as one source says it: its texts, how to point at it, and where its paths count from."""

    where: str
    texts: tuple[str, ...]
    base: Path


def read_settings(program: Program, argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings of `program` from all sources, checked.

    Raises SettingError, whose message names source, setting and rule. Ends the process after
    printing, as command lines do, if `argv` asks for --help.
    """
    arguments = vars(parser_for(program).parse_args(argv))
    older = {name: arguments.pop(name) for name in OLDER_FLAGS if name in arguments}
    said = {**_from_environment(environ), **_from_command_line(arguments, older)}
    chosen = {name: _value(name, one) for name, one in said.items()}
    if config := chosen.get("config"):
        from_file = {name: _value(name, one) for name, one in _from_file(config).items()}
        chosen = {**from_file, **chosen}
    if not chosen.keys() & {"model", "bmodel", "upstream"} and (url := environ.get(YUAN_VARIABLE)):
        said_of_yuan = Said(f"{YUAN_VARIABLE} in the environment", (f"yuan:{url}",), Path.cwd())
        chosen["upstream"] = _value("upstream", said_of_yuan)
    if chosen.keys() & {"bmodel", "upstream"}:
        chosen.setdefault("model", ())
    if (name := older.get("older_name")) is not None:
        _rename(chosen, name)
    settings = Settings(**chosen)
    check(program, settings)
    return settings


def _rename(chosen: dict[str, Any], name: str) -> None:
    """Give the one model that was chosen another name. Raises SettingError."""
    models = chosen.get("model", Settings.model)
    if bmodel := chosen.get("bmodel"):
        (chosen["bmodel"],) = rename((*models, bmodel), name)
    else:
        chosen["model"] = rename(models, name)


def parser_for(program: Program) -> argparse.ArgumentParser:
    """Return the parser of `program`'s command line; every value stays text."""
    parser = _Parser(
        prog=f"{program}.py",
        usage=f"python {program}.py [settings]",
        description=_PURPOSE[program],
        epilog=_EPILOG,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, spec in specs(program).items():
        if spec.subject not in groups:
            groups[spec.subject] = parser.add_argument_group(spec.subject)
        _add_argument(groups[spec.subject], name, spec)
    general = next(iter(groups.values()))
    older_group = parser.add_argument_group("Flags of older programs, on the command line only")
    for name, older in OLDER_FLAGS.items():
        older_group.add_argument(*older.flags, dest=name, metavar=older.metavar, help=older.meaning)
    general.add_argument("--help", "-h", action="help", help="show this text and end")
    return parser


def _add_argument(group: argparse._ArgumentGroup, name: str, spec: Spec) -> None:
    text = explanation(spec).replace("%", "%%")
    if spec.is_switch:
        group.add_argument(flag(name), dest=name, action="store_const", const="true", help=text)
    else:
        action = "append" if spec.repeatable else "store"
        group.add_argument(flag(name), dest=name, action=action, metavar=spec.metavar, help=text)


def explanation(spec: Spec) -> str:
    """Return what the setting means, with its default."""
    return (
        spec.explanation
        if spec.default is None or spec.is_switch
        else f"{spec.explanation} (default: {spec.default})"
    )


class _Parser(argparse.ArgumentParser):
    """A parser that raises where argparse would print its usage and end the process."""

    def error(self, message: str) -> NoReturn:
        raise SettingError(f"the command line cannot be read: {message} (--help shows what there is)")


def _from_command_line(arguments: Mapping[str, Any], older: Mapping[str, str]) -> dict[str, Said]:
    said = {
        name: Said(f"{flag(name)} on the command line", _texts(value), Path.cwd())
        for name, value in arguments.items()
    }
    for name, meant in translate(older, said).items():
        said[name] = Said(f"{meant.flag} on the command line", (meant.text,), Path.cwd())
    return said


def _from_environment(environ: Mapping[str, str]) -> dict[str, Said]:
    known = {variable(name): (name, spec) for name, spec in specs().items()}
    said = {}
    for key in sorted(key for key in environ if key.startswith(ENVIRONMENT_PREFIX)):
        if key not in known:
            raise SettingError(
                f"{key} in the environment is no setting; there are {', '.join(sorted(known))}"
            )
        name, spec = known[key]
        texts = tuple(environ[key].split(",")) if spec.repeatable else (environ[key],)
        said[name] = Said(f"{key} in the environment", texts, Path.cwd())
    return said


def _from_file(path: Path) -> dict[str, Said]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"the config file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingError(f"the config file {path} is not TOML: {error}") from error
    known = [name for name in specs() if name != "config"]
    said = {}
    for name, value in document.items():
        if name not in known:
            raise SettingError(f"{name} in {path} is no setting; there are {', '.join(sorted(known))}")
        said[name] = Said(f"{name} in {path}", _texts(value), path.parent)
    return said


def _texts(value: Any) -> tuple[str, ...]:
    """Write a value of argparse or TOML as a person would on the command line."""
    if isinstance(value, list):
        return tuple(text for one in value for text in _texts(one))
    return ("true" if value else "false",) if isinstance(value, bool) else (str(value),)


def _value(name: str, said: Said) -> Any:
    spec = specs()[name]
    try:
        return spec.read(said.texts, said.base)
    except ValueError as error:
        shown = "" if spec.secret else f", not {', '.join(map(repr, said.texts))}"
        raise SettingError(f"{said.where} {error}{shown}") from None
