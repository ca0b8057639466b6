import pytest

from templates.query import complaint_about_query


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, title FROM book",
        "select id from book order by id;",
        "\n  -- all of them; INSERT none\n  SELECT id FROM book /* ; DELETE */\n",
        "WITH fresh AS (SELECT * FROM book) SELECT id FROM fresh",
        "SELECT id, 'a; b' AS x, \"insert\" FROM book WHERE title <> 'it''s'",
        "SELECT id, `update` FROM book",
        "SELECT id, replace(title, 'a', 'b') AS title, updated FROM book",
    ],
)
def test_a_query_that_reads_is_taken(query):
    assert complaint_about_query(query) is None


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("", "one SELECT"),
        ("-- nothing", "one SELECT"),
        ("INSERT INTO book VALUES (1, 'x')", "one SELECT"),
        ("DELETE FROM book", "one SELECT"),
        ("PRAGMA table_info(book)", "one SELECT"),
        ("SELECTED", "one SELECT"),
        ("WITH x AS (VALUES (1))", "one SELECT"),
        ("SELECT 1; DROP TABLE book", "one statement"),
        ("SELECT 1;;", "one statement"),
        ("WITH x AS (DELETE FROM book RETURNING *) SELECT * FROM x", "says DELETE"),
        ("SELECT title INTO OUTFILE '/tmp/x' FROM book", "says INTO"),
        ("SELECT id FROM book FOR UPDATE", "says UPDATE"),
        ("SELECT id FROM book /*! FOR UPDATE */", "does not end"),
        ("SELECT 'open FROM book", "does not end"),
        ("SELECT id /* FROM book", "does not end"),
    ],
)
def test_a_query_that_does_more_is_refused(query, complaint):
    assert complaint in (complaint_about_query(query) or "")
