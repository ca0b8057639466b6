"""Starts the server: settings -> the gateway and, unless told otherwise, the workers beside it."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from bus.endpoint import make_room, remove_socket_file
from bus.errors import BusError
from bus.keys import BusKeys, read_keys, write_new_keys
from launch import CannotListen, Command, Supervisor, require_free, require_private
from settings import (
    LOG_FORMAT,
    PROJECT_FOLDER,
    Address,
    Chips,
    Program,
    SettingError,
    Settings,
    read_settings,
    socket_folder,
)


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; what cannot start ends with one line."""
    try:
        settings = read_settings("serveapi", sys.argv[1:], os.environ)
        logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
        multiprocessing.current_process().name = "gateway"
        keys = find_keys(settings)
        make_way(settings)
    except (SettingError, BusError) as error:
        print(f"serveapi: {error}", file=sys.stderr)
        return os.EX_CONFIG
    except CannotListen as error:
        print(f"serveapi: {error}", file=sys.stderr)
        return 1
    return supervise(settings) if settings.workers else serve_gateway(settings, keys)


def find_keys(settings: Settings) -> BusKeys | None:
    """Read the file of bus keys; write one if it is not there. Raises BusError."""
    if settings.bus_key_file is None:
        return None
    if not settings.bus_key_file.exists():
        return write_new_keys(settings.bus_key_file)
    return read_keys(settings.bus_key_file)


def make_way(settings: Settings) -> None:
    """See that every address and socket is free. Raises CannotListen or BusError."""
    require_free(settings.addresses)
    if settings.bus is None:
        require_private(socket_folder())
    for endpoint in settings.bus_endpoints:
        if endpoint.startswith("tcp://"):
            require_free([Address.parse(endpoint.removeprefix("tcp://"))])
        else:
            make_room(endpoint)


def serve_gateway(settings: Settings, keys: BusKeys | None) -> int:
    """Run the gateway in this process; ends in SystemExit, here and in each process that it forks."""
    from gateway.limits import Limits  # brings flask and gunicorn, which the supervisor needs not
    from gateway.server import serve

    limits = Limits(
        body_bytes=settings.body_bytes,
        task_seconds=settings.task_seconds,
        streams=settings.streams,
        api_keys=settings.api_key,
    )
    serve([str(address) for address in settings.addresses], settings.bus_endpoints, keys, limits)
    return 0


def supervise(settings: Settings) -> int:
    """Run the gateway and the workers as processes of their own, and keep them alive."""
    gateway = command("gateway", "serveapi", replace(settings, workers=0, upstream_api_key=()))
    try:
        return Supervisor(gateway, list(worker_commands(settings)), say).run()
    finally:
        for endpoint in settings.bus_endpoints:
            remove_socket_file(endpoint)  # a gateway that was killed left it


def worker_commands(settings: Settings) -> Iterator[Command]:
    """Yield a command for each worker, named after its model where there are several."""
    for own in settings_of_models(settings):
        shares = own.upstream or own.bmodel  # the other server does the work, or the chip has one worker
        workers = 1 if shares else settings.workers
        for number in range(1, workers + 1):
            words = ["worker"]
            words += own.labels if len(settings.labels) > 1 else []
            words += ["chip", str(own.dev_id)] if own.bmodel and len(settings.dev_id.groups) > 1 else []
            words += [str(number)] if workers > 1 else []
            yield command(" ".join(words), "LLMapis", replace(own, dial=settings.dial_endpoints))


def settings_of_models(settings: Settings) -> Iterator[Settings]:
    """Yield the settings for each model alone, and no other upstream's key among them; a bmodel is one for
    each of its groups of chips."""
    alone = replace(settings, model=(), upstream=(), upstream_api_key=())
    without_chips = replace(alone, bmodel=None, token_config=None, dev_id=Settings.dev_id)
    for model in settings.model:
        yield replace(without_chips, model=(model,))
    for group in settings.dev_id.groups if settings.bmodel else ():
        yield replace(alone, dev_id=Chips((group,)))
    for upstream in settings.upstream:
        keys = settings.keys_of(upstream)
        yield replace(without_chips, upstream=(upstream,), upstream_api_key=keys)


def command(name: str, program: Program, settings: Settings) -> Command:
    """Return how to start a program with these settings; secrets go into its environment."""
    arguments = (sys.executable, str(PROJECT_FOLDER / f"{program}.py"), *settings.arguments_for(program))
    return Command(name, arguments, settings.environment_for(program, os.environ))


def say(line: str) -> None:
    """Write a line for people; when nobody reads any more, the work goes on."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
