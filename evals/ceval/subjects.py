"""The 52 subjects of C-Eval: their Chinese names, their categories, and which of them are hard."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evals.ceval.errors import ExamError

#: Category -> subject -> Chinese name, and the subjects of C-Eval Hard, as C-Eval's authors list them.
SUBJECTS_FILE = Path(__file__).parent / "subjects.json"


@dataclass(frozen=True)
class Subject:
    """A subject as its files are named, as a prompt names it, and what it counts for."""

    name: str
    chinese_name: str
    category: str
    is_hard: bool


@cache
def load_subjects() -> dict[str, Subject]:
    """Return all subjects by name, in C-Eval's order."""
    content = json.loads(SUBJECTS_FILE.read_text(encoding="utf-8"))
    return {
        name: Subject(name, chinese_name, category, name in content["hard"])
        for category, members in content["categories"].items()
        for name, chinese_name in members.items()
    }


def choose_subjects(names: Sequence[str]) -> list[Subject]:
    """Return the named subjects in C-Eval's order. Raises ExamError for a name that is none."""
    known = load_subjects()
    for name in names:
        if name not in known:
            raise ExamError(f"{name}: is none of C-Eval's subjects, which are {', '.join(known)}")
    return [subject for name, subject in known.items() if name in names]
