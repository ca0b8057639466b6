"""Reads C-Eval's files: one CSV in UTF-8 for each subject and split."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from evals.ceval.errors import BadQuestions, ExamError
from evals.ceval.subjects import load_subjects

Split = Literal["dev", "val", "test"]

#: The splits as files are named.
SPLITS: tuple[Split, ...] = get_args(Split)

#: What an answer may be, and the columns of the options.
LETTERS = ("A", "B", "C", "D")

#: Columns that every file has; `answer` follows in all splits but test, and then maybe `explanation`.
COLUMNS = ("id", "question", *LETTERS)


@dataclass(frozen=True)
class Question:
    """A question with its four options; the answer's letter is None where it is not known."""

    subject: str
    id: str
    text: str
    options: tuple[str, ...]
    answer: str | None


def find_subjects(folder: Path, split: Split) -> list[str]:
    """Return the subjects that have a file of this split. Raises ExamError where there are none."""
    paths = [path for place in (folder, folder / split) for path in place.glob(f"*_{split}.csv")]
    names = sorted({path.stem.removesuffix(f"_{split}") for path in paths})
    if not names:
        raise ExamError(f"{folder}: holds no file SUBJECT_{split}.csv")
    if strangers := [name for name in names if name not in load_subjects()]:
        raise ExamError(f"{folder}: {strangers[0]}_{split}.csv is of none of C-Eval's subjects")
    return names


def find_file(folder: Path, subject: str, split: Split) -> Path:
    """Return the file, which lies in the folder or in one named after its split. Raises ExamError."""
    name = f"{subject}_{split}.csv"
    for path in (folder / name, folder / split / name):
        if path.is_file():
            return path
    raise ExamError(f"{folder}: holds neither {name} nor {split}/{name}")


def read_questions(path: Path, subject: str, split: Split) -> list[Question]:
    """Return all questions of a file. Raises BadQuestions naming file, line and rule."""
    needed = COLUMNS if split == "test" else (*COLUMNS, "answer")
    rows = _rows(path)
    _, header = next(rows, (1, []))
    if missing := [column for column in needed if header.count(column) != 1]:
        raise BadQuestions(f"{path}:1: must have one column {missing[0]}, got {','.join(header)}")
    questions: dict[str, Question] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise BadQuestions(f"{path}:{line}: must have {len(header)} fields, got {len(row)}")
        fields = dict(zip(header, row, strict=True))
        _check(f"{path}:{line}", fields, needed, questions)
        answer = None if split == "test" else fields["answer"]
        options = tuple(fields[letter] for letter in LETTERS)
        questions[fields["id"]] = Question(subject, fields["id"], fields["question"], options, answer)
    if not questions:
        raise BadQuestions(f"{path}:1: must hold questions, got only a header")
    return list(questions.values())


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line that it begins on; empty lines are passed over."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadQuestions(f"{path}:{line}: must be CSV, got {error}") from None


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExamError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadQuestions(
            f"{path}:{line}: must be UTF-8, got the byte 0x{content[error.start]:02x}"
        ) from None


def _check(place: str, fields: dict[str, str], needed: Sequence[str], known: dict[str, Question]) -> None:
    number = fields["id"]
    if not (number.isascii() and number.isdigit()):
        raise BadQuestions(f"{place}: id must be a whole number, got {number!r}")
    if number in known:
        raise BadQuestions(f"{place}: id must be there once, got {number} again")
    if not fields["question"].strip():
        raise BadQuestions(f"{place}: question must not be empty")
    if "answer" in needed and fields["answer"] not in LETTERS:
        raise BadQuestions(f"{place}: answer must be one of A, B, C and D, got {fields['answer']!r}")
