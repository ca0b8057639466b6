"""Puts questions into words: C-Eval's prompt with no example, or with the five of the dev split."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from evals.ceval.errors import BadQuestions, ExamError
from evals.ceval.questions import LETTERS, Question, Split, find_file, read_questions
from evals.ceval.subjects import Subject

#: How many examples a prompt may have: C-Eval's dev split has five questions for each subject.
SHOTS = (0, 5)

#: Hex digits of a prompt's digest: enough that no two prompts of an exam are taken for each other.
DIGEST_DIGITS = 16


@dataclass(frozen=True)
class ExamQuestion:
    """A question and the whole text that a model gets for it."""

    question: Question
    prompt: str

    @property
    def key(self) -> tuple[str, str]:
        """Subject and id, which name a question within a split."""
        return self.question.subject, self.question.id

    @property
    def digest(self) -> str:
        """What tells this prompt from any other."""
        return sha256(self.prompt.encode()).hexdigest()[:DIGEST_DIGITS]


def build_exam(folder: Path, subjects: Sequence[Subject], split: Split, shots: int) -> list[ExamQuestion]:
    """Read the questions of these subjects, and their examples. Raises ExamError."""
    if split == "dev" and shots:
        raise ExamError("--split dev: must come with --shots 0, as the examples are this split's questions")
    exam: list[ExamQuestion] = []
    for subject in subjects:
        examples = _read_examples(folder, subject.name, shots)
        questions = read_questions(find_file(folder, subject.name, split), subject.name, split)
        exam += [ExamQuestion(one, render_prompt(subject, one, examples)) for one in questions]
    return exam


def render_prompt(subject: Subject, question: Question, examples: Sequence[Question] = ()) -> str:
    """Return the text of one user turn; it ends where the letter belongs."""
    shown = [f"{_render_question(example)}{example.answer}\n\n" for example in examples]
    heading = f"以下是中国关于{subject.chinese_name}考试的单项选择题，请选出其中的正确答案。\n\n"
    return heading + "".join(shown) + _render_question(question)


def _render_question(question: Question) -> str:
    options = zip(LETTERS, question.options, strict=True)
    lines = [question.text, *(f"{letter}. {option}" for letter, option in options), "答案："]
    return "\n".join(lines)


def _read_examples(folder: Path, subject: str, shots: int) -> list[Question]:
    if not shots:
        return []
    path = find_file(folder, subject, "dev")
    examples = read_questions(path, subject, "dev")
    if len(examples) < shots:
        raise BadQuestions(f"{path}: must hold {shots} examples, got {len(examples)}")
    return examples[:shots]
