import socket
import time
from contextlib import closing

import pytest

from contract import DatabaseDown, FoundRow
from records import Database, QueryBroken
from tests.records.mariadb_server import PASSWORD

pytestmark = pytest.mark.mariadb

QUERY = "SELECT id, title FROM book ORDER BY id"


@pytest.fixture
def server(mariadb):
    mariadb.execute(
        "DROP TABLE IF EXISTS book", "CREATE TABLE book (id INT PRIMARY KEY, title CHAR(255) NOT NULL)"
    )
    return mariadb


@pytest.fixture
def database(server):
    with closing(Database(server.url, connect_seconds=5, read_seconds=5)) as database:
        yield database


def test_a_snapshot_holds_titles_character_for_character(server, database):
    titles = ["微积分之旅", "🚀🧮 emoji", "quote \" and ' back\\slash", "  leading", "new\nline", "é" * 255]
    written = [title.replace("\\", "\\\\").replace("'", "''") for title in titles]
    server.execute(*(f"INSERT INTO book VALUES ({i}, '{title}')" for i, title in enumerate(written)))
    rows = database.snapshot(QUERY, "id").rows
    assert rows == tuple(FoundRow(i, {"id": i, "title": title}) for i, title in enumerate(titles))


def test_each_snapshot_sees_what_was_committed_before_it(server, database):
    server.execute("INSERT INTO book VALUES (1, 'Optics')")
    before = database.snapshot(QUERY, "id")
    server.execute("UPDATE book SET title = 'Renamed'")
    assert not database.snapshot(QUERY, "id").holds(before.rows[0], "title")


def test_the_padding_of_char_columns_is_not_part_of_a_title(server, database):
    server.execute("INSERT INTO book VALUES (1, 'Optics   ')")
    assert database.snapshot(QUERY, "id").rows[0].fields["title"] == "Optics"


def test_signs_of_the_driver_mean_themselves_in_a_query(server, database):
    server.execute("INSERT INTO book VALUES (1, '100% :sure %s'), (2, 'other')")
    rows = database.snapshot("SELECT id FROM book WHERE title LIKE '100\\% :sure %'", "id").rows
    assert [row.key for row in rows] == [1]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO book VALUES (9, 'planted')",
        "UPDATE book SET title = ''",
        "DELETE FROM book",
        "CREATE TABLE planted (id INT)",
    ],
)
def test_a_statement_that_writes_is_refused_by_the_server(server, database, statement):
    server.execute("INSERT INTO book VALUES (1, 'Optics')")
    with pytest.raises(QueryBroken, match="READ ONLY transaction"):
        database.snapshot(statement, "id")
    assert [row.fields["title"] for row in database.snapshot(QUERY, "id").rows] == ["Optics"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT id FROM shelf", "shelf' doesn't exist"),
        ("SELECT id, author FROM book", "Unknown column 'author'"),
        ("SELECT id FRM book", "error in your SQL syntax"),
    ],
)
def test_a_broken_query_is_told_apart_from_a_server_that_is_down(database, query, words):
    with pytest.raises(QueryBroken, match=words):
        database.snapshot(query, "id")


def test_a_server_that_was_killed_and_came_back_is_read_again(server, database):
    server.execute("INSERT INTO book VALUES (1, 'Optics')")
    before = database.snapshot(QUERY, "id")
    server.kill()
    try:
        for _ in range(2):
            with pytest.raises(DatabaseDown, match=r"mariadb database library at 127\.0\.0\.1:\d+"):
                database.snapshot(QUERY, "id")
    finally:
        server.start()
    assert database.snapshot(QUERY, "id") == before


def test_a_query_that_takes_too_long_is_given_up(server):
    with closing(Database(server.url, read_seconds=1)) as database:
        begin = time.monotonic()
        with pytest.raises(DatabaseDown):
            database.snapshot("SELECT SLEEP(20) AS id", "id")
        assert time.monotonic() - begin < 10
        assert database.snapshot("SELECT 1 AS id", "id").rows[0].key == 1


def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mariadb://reader:pw@127.0.0.1:{silent.getsockname()[1]}/library"
        with (
            pytest.raises(DatabaseDown),
            closing(Database(url, connect_seconds=1, read_seconds=1)) as database,
        ):
            database.snapshot(QUERY, "id")


def test_a_wrong_password_is_told_and_not_shown(server):
    with (
        closing(Database(server.url.replace(PASSWORD, "wr0ng-pa55"))) as database,
        pytest.raises(DatabaseDown, match="Access denied") as raised,
    ):
        database.snapshot(QUERY, "id")
    assert "wr0ng-pa55" not in str(raised.value)


def test_a_large_table_is_refused(server):
    server.execute("INSERT INTO book SELECT seq, 'x' FROM seq_1_to_20000")
    with closing(Database(server.url, max_rows=10)) as database:
        with pytest.raises(QueryBroken, match="more than 10 rows"):
            database.snapshot(QUERY, "id")
        assert len(database.snapshot(f"{QUERY} LIMIT 10", "id").rows) == 10


def test_values_of_every_type_become_json_values(database):
    query = (
        "SELECT 1 AS id, CAST(1.10 AS DECIMAL(5,2)) AS price, DATE '2024-02-29' AS day, TRUE AS yes,"
        " TIMESTAMP '2024-02-29 12:00:00' AS moment, NULL AS nothing, X'00ff' AS bits, 0.5e0 AS part"
    )
    fields = database.snapshot(query, "id").rows[0].fields
    assert fields == {
        "id": 1,
        "price": "1.10",
        "day": "2024-02-29",
        "yes": 1,
        "moment": "2024-02-29T12:00:00",
        "nothing": None,
        "bits": "00ff",
        "part": 0.5,
    }
