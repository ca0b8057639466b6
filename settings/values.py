"""What a setting's value may be: the types, and the rules that texts are read by."""

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

#: What a model's path begins with when it is a script of answers and no folder.
SCRIPTED_PREFIX = "scripted:"

#: How the file of a compiled net ends.
BMODEL_SUFFIX = ".bmodel"

#: What a model may be called.
MODEL_NAME = r"[\w.-]{1,64}"

#: The longest path of a Unix socket in bytes: Linux's `sun_path` without its closing zero.
SOCKET_PATH_BYTES = 107

#: What the units of an amount of memory stand for, in bytes; case does not matter.
_BYTES_OF_UNIT = {"B": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("KMGT", 1)
    for ending, base in (("B", 1000), ("IB", 1024))
}


class SettingError(Exception):
    """A setting breaks a rule; the message names where it was said, the setting and the rule."""


@dataclass(frozen=True)
class Address:
    """A TCP address to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read HOST:PORT or [IPV6]:PORT; raises ValueError with the rule."""
        host, colon, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        digits = port.isascii() and port.isdigit() and len(port) <= 5
        if not (colon and host and digits and 1 <= int(port) <= 65535) or re.search(r"[\s/\[\]]", host):
            raise ValueError("must be HOST:PORT with a port from 1 to 65535")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a host name other than localhost counts as not."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class NamedModel:
    """A model to serve: the name that requests use, and its folder (or `scripted:…`)."""

    name: str
    path: str

    @classmethod
    def own_name(cls, path: str) -> str:
        """What it is called if nobody names it: as its folder, its bmodel's stem, or `scripted`."""
        if path.startswith(SCRIPTED_PREFIX):
            return "scripted"
        return Path(path).name.removesuffix(BMODEL_SUFFIX)

    @property
    def is_renamed(self) -> bool:
        return self.name != self.own_name(self.path)

    def __str__(self) -> str:
        return f"{self.name}={self.path}"


@dataclass(frozen=True)
class Upstream:
    """A model on somebody else's server, `openai:URL[#MODEL]` or `yuan:URL`; without a name it has theirs."""

    name: str
    place: str

    @property
    def label(self) -> str:
        """What this machine calls it before the server has told its name."""
        kind, _, address = self.place.partition(":")
        url, _, model = address.partition("#")
        return self.name or model or (urlsplit(url).netloc if kind == "openai" else kind)

    @property
    def takes_key(self) -> bool:
        return self.place.startswith("openai:")

    def keys_among(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Those that were given as NAME=KEY under its name, without the name."""
        own = f"{self.name}="
        return tuple(key.removeprefix(own) for key in keys if self.name and key.startswith(own))

    def __str__(self) -> str:
        return f"{self.name}={self.place}" if self.name else self.place


@dataclass(frozen=True)
class Chips:
    """Ids of TPU chips: a group for each worker, whose chips share one bmodel's work."""

    groups: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        return ",".join("+".join(map(str, group)) for group in self.groups)


@dataclass(frozen=True)
class Memory:
    """An amount of memory."""

    size_bytes: int

    def __str__(self) -> str:
        return f"{self.size_bytes}B"


def whole(least: int, most: int) -> Callable[[str, Path], int]:
    def parse(text: str, base: Path) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def one_of(*words: str) -> Callable[[str, Path], str]:
    def parse(text: str, base: Path) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return parse


def memory(text: str, base: Path) -> Memory | None:
    """Take a number with a unit; None stands for auto."""
    if text == "auto":
        return None
    said = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)", text)
    unit = _BYTES_OF_UNIT.get(said[2].upper()) if said else None
    if said is None or unit is None or not (size_bytes := int(float(said[1]) * unit)):
        raise ValueError("must be auto, or a size such as 8GB, 7.5GiB or 512MiB")
    return Memory(size_bytes)


def address(text: str, base: Path) -> Address:
    return Address.parse(text)


def path(text: str, base: Path) -> Path:
    if not text or "\0" in text:
        raise ValueError("must be a path")
    return (base / Path(text).expanduser()).resolve()


def model(text: str, base: Path) -> NamedModel:
    """Take [NAME=]PATH; without a name it is the folder's, or `scripted`."""
    named = re.fullmatch(r"([\w.-]+)=(.+)", text)
    name, place = (named[1], named[2]) if named else ("", text)
    folder = place if place.startswith(SCRIPTED_PREFIX) else str(path(place, base))
    name = name or NamedModel.own_name(folder)
    if not re.fullmatch(MODEL_NAME, name):
        raise ValueError("must be [NAME=]PATH, the name up to 64 letters, digits, '.', '_' or '-'")
    return NamedModel(name, folder)


def bmodel(text: str, base: Path) -> NamedModel:
    """Take [NAME=]FILE; without a name it is the file's stem."""
    said = model(text, base) if not text.startswith(SCRIPTED_PREFIX) else None
    if said is None or not said.path.endswith(BMODEL_SUFFIX):
        raise ValueError(f"must be [NAME=]FILE with the file of a compiled net, FILE{BMODEL_SUFFIX}")
    return said


def chips(text: str, base: Path) -> Chips:
    """Take ids separated by commas, each of its own worker, and by + where chips share a bmodel's work."""
    if not re.fullmatch(r"[0-9]{1,4}([,+][0-9]{1,4})*", text):
        raise ValueError(
            "must be numbers of chips such as 0, or 0,1 for a worker each, or 0+1 for one on both"
        )
    groups = tuple(tuple(map(int, group.split("+"))) for group in text.split(","))
    ids = [id_ for group in groups for id_ in group]
    if len(set(ids)) < len(ids):
        raise ValueError("must not name a chip twice")
    return Chips(groups)


def upstream(text: str, base: Path) -> Upstream:
    """Take [NAME=]openai:URL[#MODEL] or [NAME=]yuan:URL."""
    said = re.fullmatch(r"(?:([\w.-]{1,64})=)?((?:openai|yuan):(https?://[^\s#?,]+)(#[^\s,]+)?)", text)
    parts = urlsplit(said[3]) if said else None
    if said is None or parts is None or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            "must be [NAME=]openai:URL[#MODEL] or [NAME=]yuan:URL, with an http:// or https:// URL "
            "that holds no password"
        )
    if said[4] and not said[2].startswith("openai:"):
        raise ValueError("must be yuan:URL without #MODEL: such a server has one model")
    return Upstream(said[1] or "", said[2])


def upstream_key(text: str, base: Path) -> str:
    if not re.fullmatch(r"[!-+\--~]{1,1024}", text):
        raise ValueError("must be up to 1024 visible ASCII characters without commas")
    return text


def database(text: str, base: Path) -> str:
    if not re.match(r"[a-z][a-z0-9+]*://", text):
        raise ValueError("must be a URL such as sqlite:///FILE or mariadb://USER:PASSWORD@HOST/NAME")
    file = re.fullmatch(r"(sqlite[a-z0-9+]*:///)([^:?].*)", text)
    return f"{file[1]}{path(file[2], base)}" if file else text


def endpoint(text: str, base: Path) -> str:
    scheme, _, rest = text.partition("://")
    if scheme == "tcp":
        return f"tcp://{Address.parse(rest)}"
    if scheme != "ipc" or not rest.startswith("/") or len(os.fsencode(rest)) > SOCKET_PATH_BYTES:
        raise ValueError(f"must be tcp://HOST:PORT or ipc:///PATH of at most {SOCKET_PATH_BYTES} bytes")
    return text


def bus_base(text: str, base: Path) -> str:
    if not text.startswith("tcp://"):
        raise ValueError("must be tcp://HOST:PORT (leave it out for sockets on this machine)")
    return endpoint(text, base)


def api_key(text: str, base: Path) -> str:
    if not re.fullmatch(r"[!-+\--~]{8,256}", text):
        raise ValueError("must be 8 to 256 visible ASCII characters without commas")
    return text


def switch(text: str, base: Path) -> bool:
    return one_of("true", "false")(text, base) == "true"
