import pytest

from contract import FoundRow
from records import QueryBroken, Snapshot


def snapshot(*titles):
    return Snapshot.build(["id", "title"], list(enumerate(titles)), "id")


def test_rows_without_a_title_are_not_considered():
    assert [row.key for row in snapshot("Optics", None, "", "0", " ").having("title").rows] == [0, 3, 4]


def test_a_title_of_several_rows_is_one_text_with_all_its_rows():
    found = snapshot("B", "A", "B").by_text("title")
    assert {text: [row.key for row in rows] for text, rows in found.items()} == {"B": [0, 2], "A": [1]}
    assert list(found) == ["B", "A"]


def test_a_row_is_held_while_its_key_has_the_same_title():
    row = FoundRow(1, {"title": "A"})
    assert snapshot("B", "A").holds(row, "title")
    assert not snapshot("A", "B").holds(row, "title")
    assert not snapshot("A").holds(row, "title")


def test_a_column_that_the_query_does_not_give_is_named():
    with pytest.raises(QueryBroken, match="no column 'author', only id, title"):
        snapshot("A").having("author")
