from contextlib import closing

import pytest

from contract import DatabaseDown, FoundRow
from records import Database, QueryBroken
from tests.records.postgresql_server import PASSWORD

QUERY = "SELECT id, title FROM book ORDER BY id"


@pytest.fixture
def server(postgresql):
    postgresql.execute(
        "DROP TABLE IF EXISTS book", "CREATE TABLE book (id int PRIMARY KEY, title varchar(255))"
    )
    return postgresql


@pytest.fixture
def database(server):
    with closing(Database(server.url, read_seconds=5)) as database:
        yield database


def test_a_snapshot_holds_titles_character_for_character(server, database):
    server.execute("INSERT INTO book VALUES (2, '🚀 100% \\ \"'), (1, '  微积分')")
    rows = database.snapshot(QUERY, "id").rows
    assert rows == (
        FoundRow(1, {"id": 1, "title": "  微积分"}),
        FoundRow(2, {"id": 2, "title": '🚀 100% \\ "'}),
    )


@pytest.mark.parametrize(
    "statement",
    [
        "WITH planted AS (INSERT INTO book VALUES (9, 'x') RETURNING *) SELECT * FROM planted",
        "SELECT setval('numbers', 7) AS id",
        "DELETE FROM book",
        "CREATE TABLE planted (id int)",
    ],
)
def test_a_statement_that_writes_is_refused_by_the_server(server, database, statement):
    server.execute("INSERT INTO book VALUES (1, 'Optics')", "CREATE SEQUENCE IF NOT EXISTS numbers")
    before = database.snapshot(QUERY, "id")
    with pytest.raises(QueryBroken):
        database.snapshot(statement, "id")
    assert database.snapshot(QUERY, "id") == before


def test_a_broken_query_is_told_apart_from_a_server_that_is_down(database):
    with pytest.raises(QueryBroken, match='relation "shelf" does not exist'):
        database.snapshot("SELECT id FROM shelf", "id")


def test_a_query_that_takes_too_long_is_given_up(server):
    with closing(Database(server.url, read_seconds=0.5)) as database:
        with pytest.raises(DatabaseDown, match="statement timeout"):
            database.snapshot("SELECT 1 AS id FROM pg_sleep(20)", "id")
        assert len(database.snapshot("SELECT 1 AS id", "id").rows) == 1


def test_a_large_table_is_refused(server):
    server.execute("INSERT INTO book SELECT number, 'x' FROM generate_series(1, 20000) AS number")
    with closing(Database(server.url, max_rows=10)) as database:
        with pytest.raises(QueryBroken, match="more than 10 rows"):
            database.snapshot(QUERY, "id")
        assert len(database.snapshot(f"{QUERY} LIMIT 10", "id").rows) == 10


def test_a_server_that_was_stopped_and_came_back_is_read_again(server, database):
    server.execute("INSERT INTO book VALUES (1, 'Optics')")
    before = database.snapshot(QUERY, "id")
    server.stop()
    try:
        for _ in range(2):
            with pytest.raises(DatabaseDown, match=r"postgresql database postgres at 127\.0\.0\.1") as raised:
                database.snapshot(QUERY, "id")
            assert PASSWORD not in str(raised.value)
    finally:
        server.start()
    assert database.snapshot(QUERY, "id") == before


def test_values_of_the_servers_own_types_become_json_values(database):
    query = (
        "SELECT 1 AS id, 1.10::numeric AS price, '{\"a\": [1]}'::jsonb AS object, ARRAY['书'] AS list,"
        " true AS yes, '\\x00ff'::bytea AS bits, 'NaN'::float8 AS none, interval '1 hour' AS span"
    )
    fields = database.snapshot(query, "id").rows[0].fields
    assert fields == {
        "id": 1,
        "price": "1.10",
        "object": '{"a": [1]}',
        "list": '["书"]',
        "yes": True,
        "bits": "00ff",
        "none": None,
        "span": "1:00:00",
    }
