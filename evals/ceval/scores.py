"""Counts right answers: by subject, and averaged over subjects by category, as C-Eval's authors do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evals.ceval.prompts import ExamQuestion
from evals.ceval.subjects import Subject, load_subjects

#: The average over all subjects, and that over the subjects of C-Eval Hard.
ALL, HARD = "All", "Hard"

#: Question (subject, id) -> letter, or None where an answer holds none; nothing where there is no answer.
Letters = Mapping[tuple[str, str], str | None]


@dataclass(frozen=True)
class Score:
    """What became of a subject's questions; one without a letter is not right."""

    questions: int
    right: int

    @property
    def accuracy(self) -> float:
        """Which share of the questions was answered right."""
        return self.right / self.questions


@dataclass(frozen=True)
class Average:
    """Several subjects: the mean of their accuracies, each subject counting the same."""

    subjects: int
    questions: int
    right: int
    accuracy: float


def score_subjects(exam: Iterable[ExamQuestion], letters: Letters) -> dict[Subject, Score]:
    """Count by subject, in C-Eval's order."""
    rights: dict[str, list[bool]] = {}
    for one in exam:
        is_right = letters.get(one.key) == one.question.answer
        rights.setdefault(one.question.subject, []).append(is_right)
    known = load_subjects()
    return {known[name]: Score(len(rights[name]), sum(rights[name])) for name in known if name in rights}


def average_categories(scores: Mapping[Subject, Score]) -> dict[str, Average]:
    """Average over all subjects, over those of each category, and over the hard ones; no empty averages."""
    groups: dict[str, list[Score]] = {ALL: list(scores.values())}
    for subject, score in scores.items():
        groups.setdefault(subject.category, []).append(score)
    groups[HARD] = [score for subject, score in scores.items() if subject.is_hard]
    return {name: _average(members) for name, members in groups.items() if members}


def _average(scores: list[Score]) -> Average:
    return Average(
        subjects=len(scores),
        questions=sum(score.questions for score in scores),
        right=sum(score.right for score in scores),
        accuracy=sum(score.accuracy for score in scores) / len(scores),
    )
