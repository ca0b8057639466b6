"""Rules that hold between settings."""

import os

from settings.settings import Settings
from settings.spec import Program, flag
from settings.values import SOCKET_PATH_BYTES, Address, SettingError

#: The highest TCP port.
LAST_PORT = 65535


def check(program: Program, settings: Settings) -> None:
    """Raise SettingError if settings that are right one by one do not fit together."""
    _check_bus(settings)
    _check_models(program, settings)
    _check_chips(program, settings)
    if program == "serveapi":
        _check_listen(settings)


def _check_listen(settings: Settings) -> None:
    if len(set(settings.listen)) < len(settings.listen):
        raise SettingError("--listen names the same address twice")
    beyond = [str(address) for address in settings.listen if not address.is_loopback]
    if beyond and not settings.api_key and not settings.open:
        raise SettingError(
            f"--listen {beyond[0]} lets other machines in: give them a key with --api-key "
            "(or LECTERN_API_KEY), or allow everybody with --open"
        )


def _check_models(program: Program, settings: Settings) -> None:
    names = settings.labels
    if not names:
        raise SettingError("--model is empty: name at least one model")
    if len(set(names)) < len(names):
        raise SettingError(
            "--model uses a name twice, or --bmodel or --upstream one of its names: tell them apart with "
            "NAME=…"
        )
    if program == "LLMapis" and len(names) > 1:
        raise SettingError(f"--model: a worker holds one model, not {len(names)} ({', '.join(names)})")
    given = sum(len(settings.keys_of(one)) for one in settings.upstream if one.takes_key)
    if given != len(settings.upstream_api_key) or any(
        len(settings.keys_of(one)) > 1 for one in settings.upstream
    ):
        raise SettingError(
            "--upstream-api-key: each key belongs to one upstream, so with several give the upstreams "
            "names and write NAME=KEY"
        )


def _check_chips(program: Program, settings: Settings) -> None:
    if settings.bmodel is None:
        for name in ("token_config", "dev_id"):
            if getattr(settings, name) != getattr(Settings, name):
                raise SettingError(f"{flag(name)} belongs to a bmodel: name one with --bmodel")
    elif program == "LLMapis" and len(settings.dev_id.groups) > 1:
        raise SettingError(
            f"--dev-id {settings.dev_id} is for several workers: this one needs one chip, or those of a "
            "bmodel that is compiled for several, such as 0+1"
        )


def _check_bus(settings: Settings) -> None:
    if not settings.listen:
        raise SettingError("--listen is empty: name at least one address")
    if settings.bus is not None:
        first = Address.parse(settings.bus.removeprefix("tcp://"))
        if first.port + settings.gateways - 1 > LAST_PORT:
            raise SettingError(f"--bus {settings.bus} leaves no port for {settings.gateways} gateways")
    for endpoint in (*settings.bus_endpoints, *settings.dial):
        _check_endpoint(endpoint, has_keys=settings.bus_key_file is not None)


def _check_endpoint(endpoint: str, *, has_keys: bool) -> None:
    scheme, _, place = endpoint.partition("://")
    if scheme == "ipc" and len(os.fsencode(place)) > SOCKET_PATH_BYTES:
        raise SettingError(
            f"the socket's path {place} is over {SOCKET_PATH_BYTES} bytes long: "
            "set TMPDIR to a shorter folder, or --bus to a TCP address"
        )
    if scheme == "tcp" and not has_keys and not Address.parse(place).is_loopback:
        raise SettingError(
            f"{endpoint} lets other machines onto the bus: protect it with {flag('bus_key_file')}"
        )
