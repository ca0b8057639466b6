"""The phrases that titles, wishes and questions are made of: what the data file says."""

import tomllib
from functools import cache
from pathlib import Path

from demo.topics import LANGUAGES, Language

PHRASES_FILE = Path(__file__).parent / "phrases.toml"


@cache
def load_phrases(path: Path = PHRASES_FILE) -> dict[str, dict[Language, tuple[str, ...]]]:
    """Kind -> language -> phrases."""
    tables = tomllib.loads(path.read_text("utf-8"))
    return {
        kind: {language: tuple(table[language]) for language in LANGUAGES} for kind, table in tables.items()
    }
