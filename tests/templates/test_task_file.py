from pathlib import Path

import pytest

from contract import FoundRow, ServingError
from templates import TaskFileError, load_tasks

PROJECT = Path(__file__).resolve().parents[2]


def row(key, **fields):
    return FoundRow(key, fields)


def complaint(folder):
    with pytest.raises(TaskFileError) as raised:
        load_tasks(folder)
    error = raised.value
    assert str(error) == ": ".join(part for part in (str(error.file), error.field, error.reason) if part)
    return error


def test_the_projects_own_tasks_can_work():
    tasks = load_tasks(PROJECT / "templates")
    assert "book_retrieval" in tasks
    assert tasks["book_retrieval"].answer.field == "title"


def test_the_book_prompt_is_written_to_the_letter():
    task = load_tasks(PROJECT / "templates")["book_retrieval"]
    rows = [row(1, id=1, title='积分 "A" <&> \\ \n🚀'), row(2, id=2, title="光学")]
    assert task.render(rows, "帮我找找 <b>{{ 7 }}</b>") == (
        "下面是书目，每行一个书名。读者会说出想找的书。请按书目的顺序选出所有符合的书，"
        "用 JSON 对象作答：编号 → 书名；没有符合的就回答 {}。\n\n"
        '"积分 \\"A\\" <&> \\\\ \\n🚀"\n"光学"\n\n读者想找：帮我找找 <b>{{ 7 }}</b>'
    )


def test_a_task_is_named_after_its_file(folder):
    task = load_tasks(folder)["books"]
    assert (task.name, task.description) == ("books", "Find books")
    assert (task.source.query, task.source.key) == ("SELECT id, title FROM book ORDER BY id", "id")
    assert (task.answer.at_most, task.answer.none_allowed) == (10, True)


def test_none_is_allowed_unless_the_file_says_no(folder, change):
    change("none_allowed = true\n", "")
    assert load_tasks(folder)["books"].answer.none_allowed


def test_a_folder_without_task_files_has_no_tasks(folder):
    (folder / "tasks" / "books.toml").unlink()
    assert load_tasks(folder) == {}


def test_a_missing_folder_is_an_error(tmp_path):
    assert complaint(tmp_path).reason == "there is no such folder"


@pytest.mark.parametrize(
    ("old", "new", "field", "reason"),
    [
        ('key = "id"', "", "source.key", "missing required field"),
        ("[prompt]\nfile", "[prompts]\nfile", "prompts", "unknown field"),
        ('description = "Find books"', "", "description", "missing required field"),
        ('description = "Find books"', 'description = ""', "description", "length >= 1"),
        ('key = "id"', 'key = "id"\ndatabase = "x"', "source.database", "unknown field"),
        ("at_most = 10", "at_most = 0", "answer.at_most", ">= 1, got 0"),
        ("at_most = 10", "at_most = -3", "answer.at_most", ">= 1, got -3"),
        ("at_most = 10", 'at_most = "ten"', "answer.at_most", "got 'ten'"),
        ("at_most = 10", "at_most = 2.5", "answer.at_most", "got 2.5"),
        ("none_allowed = true", "none_allowed = 1", "answer.none_allowed", "got 1"),
        ('"SELECT id, title FROM book ORDER BY id"', '"DELETE FROM book"', "source.query", "one SELECT"),
        ('"books.jinja"', '"other.jinja"', "prompt.file", "cannot be read: No such file"),
        ('"books.jinja"', '"../tasks/books.toml"', "prompt.file", "matching regex"),
        ('"books.jinja"', '""', "prompt.file", "matching regex"),
    ],
)
def test_a_broken_file_is_told_with_field_and_reason(folder, change, old, new, field, reason):
    change(old, new)
    error = complaint(folder)
    assert error.file == folder / "tasks" / "books.toml"
    assert error.field == field
    assert reason in error.reason


def test_toml_that_cannot_be_read_is_told_with_its_line(folder, change):
    change('key = "id"', 'key = "id')
    assert "line 5" in complaint(folder).reason


def test_a_file_that_is_not_utf8_is_told(folder):
    (folder / "tasks" / "books.toml").write_bytes("description = '书'".encode("gb18030"))
    assert "UTF-8" in complaint(folder).reason


def test_a_prompt_that_is_not_utf8_is_told(folder):
    (folder / "prompts" / "books.jinja").write_bytes("书".encode("gb18030"))
    assert complaint(folder).field == "prompt.file"


def test_a_broken_prompt_is_told_with_its_file_and_line(folder):
    (folder / "prompts" / "books.jinja").write_text(
        "\n{% for row in rows %}\n{{ row.title }\n", encoding="utf-8"
    )
    error = complaint(folder)
    assert error.field == "prompt.file"
    assert error.reason.startswith("books.jinja line 3: ")


@pytest.mark.parametrize("name", ["chat", "Books", "my-books", "2nd", "a" * 65, ".hidden"])
def test_a_name_that_no_route_can_have_is_refused(folder, name):
    (folder / "tasks" / "books.toml").rename(folder / "tasks" / f"{name}.toml")
    error = complaint(folder)
    assert error.field == "name"


def test_a_prompt_that_wants_another_column_fails_with_a_clear_error(folder):
    task = load_tasks(folder)["books"]
    with pytest.raises(ServingError, match=r"prompt of the task books does not fit its rows.*title"):
        task.render([row(1, id=1)], "x")
