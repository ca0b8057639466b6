"""How one setting is said, checked and explained."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from settings import values

#: What the name of every environment variable of ours begins with.
ENVIRONMENT_PREFIX = "LECTERN_"

Program = Literal["serveapi", "LLMapis"]

#: The project's folder: relative paths among the defaults count from here.
PROJECT_FOLDER = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Spec:
    """How one setting is said, checked and explained; `default` is text as a person would write it."""

    default: str | None
    parse: Callable[[str, Path], Any]
    subject: str
    programs: tuple[Program, ...]
    metavar: str
    explanation: str
    repeatable: bool = False
    secret: bool = False

    @property
    def is_switch(self) -> bool:
        return self.parse is values.switch

    def read(self, texts: Sequence[str], base: Path) -> Any:
        """Turn texts into the setting's value; raises ValueError with the rule."""
        if self.repeatable:
            return tuple(self.parse(text, base) for text in texts)
        if len(texts) != 1:
            raise ValueError("takes one value")
        return self.parse(texts[0], base)

    def show(self, value: object) -> str:
        """Return a value without what is secret in it: a whole key, or the password inside a URL."""
        if not self.secret or not value:
            return repr(value)
        if isinstance(value, tuple):
            return repr(("***",) * len(value))
        without_password = re.sub(r"(//[^:/@]*:).*@", r"\1***@", str(value))
        return repr(re.sub(r"([?&]\w*pass\w*=)[^&]*", r"\1***", without_password))


def setting(
    default: str | None,
    parse: Callable[[str, Path], Any],
    subject: str,
    programs: tuple[Program, ...],
    metavar: str,
    explanation: str,
    *,
    repeatable: bool = False,
    secret: bool = False,
) -> Any:
    spec = Spec(default, parse, subject, programs, metavar, explanation, repeatable, secret)
    if default is None:
        return field(default=() if repeatable else None, metadata={"spec": spec})
    return field(default=spec.read([default], PROJECT_FOLDER), metadata={"spec": spec})


def flag(name: str) -> str:
    """Return how a command line names a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return how the environment names a setting."""
    return ENVIRONMENT_PREFIX + name.upper()
