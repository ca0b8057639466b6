import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract import DatabaseDown, FoundRow
from records import Database, QueryBroken

QUERY = "SELECT id, title FROM book ORDER BY id"


def test_a_snapshot_holds_the_rows_in_the_order_of_the_query(catalogue):
    snapshot = Database(catalogue.url).snapshot(QUERY, "id")
    assert snapshot.columns == ("id", "title")
    assert snapshot.rows == (
        FoundRow(1, {"id": 1, "title": "Calculus"}),
        FoundRow(2, {"id": 2, "title": "Algebra"}),
        FoundRow(3, {"id": 3, "title": "Optics"}),
    )


def test_an_empty_table_is_no_error(catalogue):
    catalogue("DELETE FROM book")
    assert Database(catalogue.url).snapshot(QUERY, "id").rows == ()


def test_a_path_may_hold_any_character_but_a_question_mark(catalogue, tmp_path):
    strange = tmp_path / "my books % #1 书.db"
    catalogue.path.rename(strange)
    assert len(Database(f"sqlite:///{strange}").snapshot(QUERY, "id").rows) == 3


@pytest.mark.parametrize(
    "statement", ["INSERT INTO book VALUES (9, 'x')", "DELETE FROM book", "CREATE TABLE planted (id INT)"]
)
def test_a_statement_that_writes_is_refused_by_the_database(catalogue, statement):
    database = Database(catalogue.url)
    before = database.snapshot(QUERY, "id")
    with pytest.raises(QueryBroken, match="readonly database"):
        database.snapshot(statement, "id")
    assert database.snapshot(QUERY, "id") == before


def test_a_file_that_is_not_there_is_a_database_that_is_down_until_it_comes(catalogue, tmp_path):
    away = tmp_path / "away.db"
    catalogue.path.rename(away)
    database = Database(catalogue.url)
    with pytest.raises(DatabaseDown, match=r"SQLite file .*catalogue\.db does not answer"):
        database.snapshot(QUERY, "id")
    assert not catalogue.path.exists()
    away.rename(catalogue.path)
    assert len(database.snapshot(QUERY, "id").rows) == 3


def test_a_locked_file_is_a_database_that_is_down(catalogue):
    writer = sqlite3.connect(catalogue.path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(DatabaseDown, match="locked"):
            Database(catalogue.url, read_seconds=0.1).snapshot(QUERY, "id")
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("query", "key", "words"),
    [
        ("SELECT id FROM shelf", "id", "no such table: shelf"),
        ("SELECT id, author FROM book", "id", "no such column: author"),
        ("SELECT id FRM book", "id", "syntax error"),
        ("SELECT title FROM book", "id", "gives no column 'id', only title"),
        ("SELECT 7 AS id, title FROM book", "id", "'id' of the task's query is 7 in 3 rows"),
        ("SELECT NULL AS id, title FROM book", "id", "'id' of the task's query is NULL in 3 row"),
        ("SELECT id, title AS id FROM book", "id", "two columns named 'id'"),
    ],
)
def test_a_query_that_cannot_work_is_told_in_the_words_of_the_database(catalogue, query, key, words):
    with pytest.raises(QueryBroken, match=words):
        Database(catalogue.url).snapshot(query, key)


def test_more_rows_than_allowed_are_refused(catalogue):
    assert len(Database(catalogue.url, max_rows=3).snapshot(QUERY, "id").rows) == 3
    with pytest.raises(QueryBroken, match="more than 2 rows"):
        Database(catalogue.url, max_rows=2).snapshot(QUERY, "id")


def test_many_threads_may_read_at_once(catalogue):
    database = Database(catalogue.url)
    together = threading.Barrier(8, timeout=10)

    def read(_):
        together.wait()
        return database.snapshot(QUERY, "id")

    with ThreadPoolExecutor(8) as pool:
        assert len({snapshot.rows[0].fields["title"] for snapshot in pool.map(read, range(8))}) == 1


def test_a_server_that_refuses_is_named_without_its_password(unused_port):
    database = Database(f"mysql://reader:s3cret@127.0.0.1:{unused_port}/library?charset=utf8mb4")
    with pytest.raises(DatabaseDown) as raised:
        database.snapshot(QUERY, "id")
    message = str(raised.value)
    assert message.startswith(f"the mysql database library at 127.0.0.1:{unused_port} does not answer:")
    assert "s3cret" not in message
    assert "reader" not in message


def test_a_query_can_be_tried_at_the_start(catalogue):
    database = Database(catalogue.url)
    assert database.complaint_about(QUERY, "id", "title") is None
    assert "no column 'author'" in (database.complaint_about(QUERY, "id", "author") or "")
    assert "no such table" in (database.complaint_about("SELECT id FROM shelf", "id", "id") or "")
    catalogue.path.unlink()
    assert "does not answer" in (database.complaint_about(QUERY, "id", "title") or "")
