"""The figures of a run: Markdown tables for people, and the file that C-Eval's site takes."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from evals.ceval.prompts import ExamQuestion
from evals.ceval.scores import Average, Letters, Score
from evals.ceval.subjects import Subject


def render_report(scores: Mapping[Subject, Score], averages: Mapping[str, Average]) -> str:
    """Return a table of categories and one of subjects, accuracies in percent."""
    lines = ["| category | subjects | questions | right | accuracy |", "|---|---|---|---|---|"]
    lines += [
        _row(name, one.subjects, one.questions, one.right, f"{one.accuracy:.1%}")
        for name, one in averages.items()
    ]
    lines += ["", "| subject | category | questions | right | accuracy |", "|---|---|---|---|---|"]
    lines += [
        _row(subject.name, subject.category, score.questions, score.right, f"{score.accuracy:.1%}")
        for subject, score in scores.items()
    ]
    return "\n".join(lines)


def write_submission(path: Path, exam: Iterable[ExamQuestion], letters: Letters) -> None:
    """Write subject -> id -> letter as JSON, whole or not at all; where there is no letter, it is empty."""
    content: dict[str, dict[str, str]] = {}
    for one in exam:
        content.setdefault(one.question.subject, {})[one.question.id] = letters.get(one.key) or ""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
