import pytest

from tests.templates.sample_task import BOOKS, PROMPT


@pytest.fixture
def folder(tmp_path):
    """A templates folder with one task that works."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "tasks" / "books.toml").write_text(BOOKS, encoding="utf-8")
    (tmp_path / "prompts" / "books.jinja").write_text(PROMPT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def change(folder):
    """Replace a piece of the task file."""

    def change(old, new):
        assert old in BOOKS
        (folder / "tasks" / "books.toml").write_text(BOOKS.replace(old, new), encoding="utf-8")

    return change
