"""The file of a run: its conditions in the first line, then a line for every answer as it came."""

import fcntl
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from evals.ceval.errors import BadResults
from evals.ceval.prompts import ExamQuestion
from evals.ceval.questions import Split


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all answers of a file have in common; answers under others belong into another file."""

    split: Split
    shots: int
    predicts: bool
    max_tokens: int | None
    model: str | None


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer as the server gave it; `prompt` is the digest of what was asked."""

    subject: str
    id: str
    prompt: str
    answer: str
    first_token_seconds: float | None = None


_Line = TypeVar("_Line", Conditions, Answer)


class Results:
    """Answers by subject and id; open while answers are added, for one program at a time."""

    def __init__(self, path: Path, conditions: Conditions) -> None:
        """Open the file of a new run, or of one to go on with. Raises BadResults, OSError."""
        self._path = path
        self.answers: dict[tuple[str, str], Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(conditions)
        except BlockingIOError:
            self._file.close()
            raise BadResults(f"{path}: another run is writing it") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._file.close()

    def add(self, answer: Answer) -> None:
        """Keep an answer; its line is with the system before this returns."""
        self._write(answer)
        self.answers[answer.subject, answer.id] = answer

    def missing(self, exam: Sequence[ExamQuestion]) -> dict[int, str]:
        """Return the prompts that have no answer yet, by their place in the exam.

        Raises BadResults where an answer is to other words than the exam's.
        """
        prompts = {}
        for number, one in enumerate(exam):
            known = self.answers.get(one.key)
            if known is None:
                prompts[number] = one.prompt
            elif known.prompt != one.digest:
                raise BadResults(f"{self._path}: holds an answer to other words of {' '.join(one.key)}")
        return prompts

    def _read(self, conditions: Conditions) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole, newline, half = content.rpartition(b"\n")
        if not newline:
            if not msgspec.json.encode(conditions).startswith(half):
                raise BadResults(f"{self._path}: is no results file of these conditions")
            self._file.truncate(0)
            self._write(conditions)
            return
        first, *lines = whole.split(b"\n")
        self._check(first, conditions)
        for number, line in enumerate(lines, start=2):
            answer = self._decode(line, number, Answer)
            self.answers[answer.subject, answer.id] = answer
        if half:  # the run before was killed while it wrote
            self._file.truncate(len(whole) + 1)

    def _check(self, line: bytes, conditions: Conditions) -> None:
        found = self._decode(line, 1, Conditions)
        for name in Conditions.__struct_fields__:
            if getattr(found, name) != getattr(conditions, name):
                raise BadResults(
                    f"{self._path}: was begun with {name} {getattr(found, name)}, "
                    f"not {getattr(conditions, name)}; name another file"
                )

    def _decode(self, line: bytes, number: int, kind: type[_Line]) -> _Line:
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.DecodeError as error:
            raise BadResults(f"{self._path}:{number}: is no line of a results file: {error}") from None

    def _write(self, line: Conditions | Answer) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
