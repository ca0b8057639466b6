import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from records import Database, embedded


def test_the_catalogue_has_25_books_in_their_order(tmp_path):
    path = tmp_path / "var" / "catalogue.db"
    embedded.ensure(path)
    rows = Database(f"sqlite:///{path}").snapshot("SELECT id, title FROM book ORDER BY id", "id").rows
    assert [row.key for row in rows] == list(range(1, 26))
    assert tuple(row.fields["title"] for row in rows) == embedded.TITLES
    assert len(set(embedded.TITLES)) == 25
    with closing(sqlite3.connect(path)) as connection:
        columns = connection.execute("SELECT name, type FROM pragma_table_info('book')").fetchall()
    assert columns == [("id", "INTEGER"), ("title", "CHAR(255)")]


def test_a_file_that_exists_is_never_touched(tmp_path):
    path = tmp_path / "catalogue.db"
    path.write_text("mine", encoding="utf-8")
    embedded.ensure(path)
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_file_that_appears_meanwhile_is_never_touched(tmp_path, monkeypatch):
    path = tmp_path / "catalogue.db"
    path.write_text("mine", encoding="utf-8")
    monkeypatch.setattr(Path, "exists", lambda self: False)
    embedded.ensure(path)
    assert path.read_text(encoding="utf-8") == "mine"


def test_workers_that_start_at_the_same_moment_share_one_whole_file(tmp_path):
    path = tmp_path / "catalogue.db"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=embedded.ensure, args=(path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert [found.name for found in tmp_path.iterdir()] == ["catalogue.db"]
    assert len(Database(f"sqlite:///{path}").snapshot("SELECT id FROM book", "id").rows) == 25


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        embedded.ensure(tmp_path / "file" / "catalogue.db")
