"""Template tasks, one a file: where its rows come from, how the model is asked, what it may answer."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jinja2
import msgspec
from msgspec import Meta, Struct

from contract import FoundRow, ServingError
from templates.errors import TaskFileError
from templates.prompt import RENDER_ERRORS, PromptError, compile_prompt, render_prompt
from templates.query import complaint_about_query

#: Tasks that are code, not files; a file of that name would never be reached.
BUILT_IN_TASKS = frozenset({"chat", "tokenize"})

#: A task's name stands in a path of the HTTP interface; 64 letters are plenty.
_TASK_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

_Filled = Annotated[str, Meta(min_length=1)]


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the rows come from: one SELECT, and which of its columns tells rows apart."""

    query: _Filled
    key: _Filled


class PromptFile(Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is asked: the name of a Jinja file in `prompts/`."""

    file: Annotated[str, Meta(pattern=r"^\w[\w.-]*$")]


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """What is answered: at most so many values of one column, and whether none is an answer."""

    field: _Filled
    at_most: Annotated[int, Meta(ge=1)]
    none_allowed: bool = True


class TaskFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A task file as it is written."""

    description: _Filled
    source: Source
    prompt: PromptFile
    answer: Answer


class TemplateTask(Struct, frozen=True):
    """A task that was read, checked and is ready to run."""

    name: str
    description: str
    source: Source
    answer: Answer
    prompt: jinja2.Template

    def render(self, rows: Sequence[FoundRow], wish: str) -> str:
        """Write the prompt; raises ServingError if it does not fit the query's columns."""
        try:
            return render_prompt(self.prompt, [row.fields for row in rows], wish)
        except RENDER_ERRORS as error:
            raise ServingError(
                f"the prompt of the task {self.name} does not fit its rows: {error}"
            ) from error


def load_tasks(folder: Path) -> dict[str, TemplateTask]:
    """Read every `tasks/*.toml` of the folder, with its prompt in `prompts/`, by task name.

    Raises TaskFileError for the first file, in order of names, that cannot work.
    """
    if not (folder / "tasks").is_dir():
        raise TaskFileError(folder / "tasks", "", "there is no such folder")
    return {path.stem: _load(path, folder / "prompts") for path in sorted((folder / "tasks").glob("*.toml"))}


def _load(path: Path, prompts: Path) -> TemplateTask:
    if not _TASK_NAME.fullmatch(path.stem):
        raise TaskFileError(path, "name", "a task's name is small letters, digits and '_', a letter first")
    if path.stem in BUILT_IN_TASKS:
        raise TaskFileError(path, "name", f"{path.stem!r} is a built-in task; choose another name")
    written = _parse(path)
    if complaint := complaint_about_query(written.source.query):
        raise TaskFileError(path, "source.query", complaint)
    try:
        prompt = compile_prompt(_read_prompt(path, prompts / written.prompt.file))
    except PromptError as error:
        raise TaskFileError(path, "prompt.file", f"{written.prompt.file} {error}") from error
    return TemplateTask(path.stem, written.description, written.source, written.answer, prompt)


def _parse(path: Path) -> TaskFile:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(document, TaskFile)
    except OSError as error:
        raise TaskFileError(path, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskFileError(path, "", f"is not UTF-8: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise TaskFileError(path, "", f"is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise TaskFileError(path, *_field_and_reason(error, document)) from error


def _field_and_reason(error: msgspec.ValidationError, document: dict[str, Any]) -> tuple[str, str]:
    """Take msgspec's message apart: ``Expected `int` >= 1 - at `$.answer.at_most` ``."""
    reason, _, place = str(error).partition(" - at `$")
    section = place.strip("`.")
    if named := re.search(r"field `(.+)`$", reason):
        return f"{section}.{named[1]}".lstrip("."), reason
    value: Any = document
    for part in section.split("."):
        value = value[part]
    return section, f"{reason}, got {value!r}"


def _read_prompt(task: Path, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TaskFileError(task, "prompt.file", f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskFileError(task, "prompt.file", f"{path} is not UTF-8: {error.reason}") from error
