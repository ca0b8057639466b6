"""Every default, once; the only reader of the command line, the environment and the config file."""

from settings.settings import LOG_FORMAT, Settings, flag, socket_folder, specs, variable
from settings.sources import read_settings
from settings.spec import PROJECT_FOLDER, Program, Spec
from settings.values import SCRIPTED_PREFIX, Address, Memory, NamedModel, SettingError

__all__ = [
    "LOG_FORMAT",
    "PROJECT_FOLDER",
    "SCRIPTED_PREFIX",
    "Address",
    "Memory",
    "NamedModel",
    "Program",
    "SettingError",
    "Settings",
    "Spec",
    "flag",
    "read_settings",
    "socket_folder",
    "specs",
    "variable",
]
