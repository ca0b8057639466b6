"""Flags of older programs: which setting each one stands for, or what to use instead."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from settings.settings import Settings
from settings.spec import flag
from settings.values import MODEL_NAME, Address, NamedModel, SettingError

#: Bits of the weights, as `--quantize` counts them, and the tier that has so many; 0 is "not at all".
TIER_OF_BITS = {"4": "small", "8": "medium", "16": "large", "0": "large"}


@dataclass(frozen=True)
class OlderFlag:
    """How an older program was told something, and the setting that is told it now."""

    flags: tuple[str, ...]
    metavar: str
    setting: str
    meaning: str


#: By the name that the command line's parser uses.
OLDER_FLAGS = {
    "older_token_config": OlderFlag(
        ("--token_config", "--token"), "FOLDER", "token_config", "the same as --token-config"
    ),
    "older_dev_id": OlderFlag(("--dev_id",), "N[,N…]", "dev_id", "the same as --dev-id"),
    "older_name": OlderFlag(("--name",), "NAME", "model", "the model's name, as in --model NAME=PATH"),
    "older_batch_size": OlderFlag(
        ("--batch_size",),
        "N",
        "capacity",
        "the same as --capacity; the batch grows and shrinks by itself, so it can be left out",
    ),
    "older_quantize": OlderFlag(
        ("--quantize", "-q"),
        "BITS",
        "tier",
        "--tier by its bits: 4 is small, 8 medium, 16 or 0 large",
    ),
    "older_host": OlderFlag(
        ("--host", "-H"), "HOST", "listen", f"the host of --listen ({Settings.listen[0].host} if left out)"
    ),
    "older_port": OlderFlag(
        ("--port", "-P"), "PORT", "listen", f"the port of --listen ({Settings.listen[0].port} if left out)"
    ),
}


@dataclass(frozen=True)
class Meant:
    """A setting's value as a person would write it today, and the flag that it was said with."""

    flag: str
    text: str


def translate(said: Mapping[str, str], settings: Collection[str]) -> dict[str, Meant]:
    """Return what the older flags mean by setting, all but the model's name; `settings` are said beside them.

    Raises SettingError if a flag says again what a setting says.
    """
    for older in (one for name, one in OLDER_FLAGS.items() if name in said):
        if older.setting in settings and older.setting != "model":  # a model has a name and a place
            raise SettingError(f"{older.flags[0]} and {flag(older.setting)} say the same: leave one out")
    meant: dict[str, Meant] = {}
    for name in ("older_token_config", "older_dev_id"):
        if name in said:
            meant[OLDER_FLAGS[name].setting] = Meant(OLDER_FLAGS[name].flags[0], said[name])
    if "older_batch_size" in said:
        meant["capacity"] = Meant("--batch_size", said["older_batch_size"])
    if "older_quantize" in said:
        meant["tier"] = Meant("--quantize", _tier(said["older_quantize"]))
    if (where := [name for name in ("older_host", "older_port") if name in said]) != []:
        meant["listen"] = Meant(" and ".join(OLDER_FLAGS[name].flags[0] for name in where), _address(said))
    return meant


def rename(models: Sequence[NamedModel], name: str) -> tuple[NamedModel]:
    """Return the one model under the name that `--name` gives it. Raises SettingError."""
    if len(models) != 1:
        raise SettingError(f"--name names one model, but there are {len(models)}: use --model NAME=PATH")
    if not re.fullmatch(MODEL_NAME, name):
        raise SettingError(f"--name must be up to 64 letters, digits, '.', '_' or '-', not {name!r}")
    (model,) = models
    if model.is_renamed and model.name != name:
        raise SettingError(f"--name {name} and --model {model} give the model two names: leave one out")
    return (NamedModel(name, model.path),)


def _tier(bits: str) -> str:
    if bits not in TIER_OF_BITS:
        raise SettingError(f"--quantize must be one of {', '.join(TIER_OF_BITS)}, not {bits!r}")
    return TIER_OF_BITS[bits]


def _address(said: Mapping[str, str]) -> str:
    usual: Address = Settings.listen[0]
    host = said.get("older_host", usual.host)
    port = said.get("older_port", str(usual.port))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
