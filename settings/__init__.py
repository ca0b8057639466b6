"""Every default, once; the only reader of the command line, the environment and the config file."""

from settings.older_flags import OLDER_FLAGS, OlderFlag
from settings.settings import CLASSIC_PORTS, LOG_FORMAT, Settings, socket_folder, specs
from settings.sources import read_settings
from settings.spec import PROJECT_FOLDER, Program, Spec, flag, variable
from settings.values import SCRIPTED_PREFIX, Address, Chips, Memory, NamedModel, SettingError, Upstream

__all__ = [
    "CLASSIC_PORTS",
    "LOG_FORMAT",
    "OLDER_FLAGS",
    "PROJECT_FOLDER",
    "SCRIPTED_PREFIX",
    "Address",
    "Chips",
    "Memory",
    "NamedModel",
    "OlderFlag",
    "Program",
    "SettingError",
    "Settings",
    "Spec",
    "Upstream",
    "flag",
    "read_settings",
    "socket_folder",
    "specs",
    "variable",
]
