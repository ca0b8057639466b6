import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import book_task
from benchmarks.book_task import Outcome, catalogue
from benchmarks.tasks import entry_of, line_of
from records.embedded import TITLES
from templates import load_tasks

SHIPPED = Path(__file__).parents[2] / "templates"

TITLES_AS_JSON = json.dumps({str(number): title for number, title in enumerate(TITLES[:5], 1)})

OWN_USAGE = {"prompt_tokens": 600, "cached_tokens": 16, "completion_tokens": 49, "steps": 7}


def outcome(**fields):
    facts = {"seconds": 1.0, "prompt_tokens": 600, "cached_tokens": 0, "answer_tokens": 50, "steps": 7}
    return Outcome(**{**facts, "titles": ("a", "b"), **fields})


def test_the_smallest_catalogue_is_the_embedded_one_in_an_order_of_its_own():
    assert sorted(catalogue(25, 1)) == sorted(TITLES)
    assert catalogue(25, 1) == catalogue(25, 1) != catalogue(25, 2)


def test_the_largest_catalogue_has_distinct_titles():
    assert len(set(catalogue(1000, 0))) == 1000
    with pytest.raises(ValueError, match="at most"):
        catalogue(100_000, 0)


def test_wishes_differ_and_there_are_enough_for_eight_at_once_twice():
    assert len(set(book_task.WISHES)) == len(book_task.WISHES) >= 16


def test_a_catalogue_replaces_the_one_before_it(tmp_path):
    book_task.write_catalogue(tmp_path / "a.db", ("one", "two"))
    book_task.write_catalogue(tmp_path / "a.db", ("three",))
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT id, title FROM book").fetchall() == [(1, "three")]


def test_the_measured_task_is_the_shipped_one_but_for_the_bounds_of_its_answer(tmp_path):
    shipped = load_tasks(SHIPPED)["book_retrieval"]
    measured = load_tasks(book_task.write_templates(tmp_path, SHIPPED))["book_retrieval"]
    assert (measured.answer.at_most, measured.answer.none_allowed) == (5, False)
    assert measured.source == shipped.source
    prompts = [book_task.prompt_of(task, TITLES, "光学") for task in (shipped, measured)]
    assert prompts[0] == prompts[1]
    assert all(f'"{title}"' in prompts[0] for title in TITLES)


def test_the_schema_asks_for_five_of_the_titles():
    schema = book_task.chat_question("m", "?", TITLES)["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == schema["required"] == ["1", "2", "3", "4", "5"]
    assert sorted(schema["properties"]["3"]["enum"]) == sorted(TITLES)
    assert book_task.form_question("?", TITLES)["form"]["schema"] == schema


def test_llama_cpp_s_grammar_says_the_same_without_white_space():
    body = book_task.grammar_question("m", "?", ('a "b"', "c\\d"))
    root, title = body["grammar"].splitlines()
    assert root.startswith(r'root ::= "{\"1\": " title ", \"2\": " title ')
    assert root.endswith(r'", \"5\": " title "}"')
    assert title == r'title ::= "\"a \\\"b\\\"\"" | "\"c\\\\d\""'
    assert "response_format" not in body


def test_answers_of_each_route_are_read():
    message = {"choices": [{"message": {"content": TITLES_AS_JSON}}]}
    chat = {**message, "usage": {"prompt_tokens": 600, "completion_tokens": 49}}
    assert book_task.chat_outcome(2.0, chat) == Outcome(2.0, 600, 0, 49, None, TITLES[:5])
    form = {"text": TITLES_AS_JSON, "usage": OWN_USAGE}
    assert book_task.form_outcome(2.0, form) == Outcome(2.0, 600, 16, 49, 7, TITLES[:5])
    rows = {"rows": [{"key": 3, "title": TITLES[2]}], "usage": OWN_USAGE}
    assert book_task.rows_outcome(2.0, rows).titles == (TITLES[2],)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"1": "a"'])
def test_an_answer_that_is_not_what_the_schema_says_does_not_count(text):
    with pytest.raises(ValueError):
        book_task.form_outcome(1.0, {"text": text, "usage": OWN_USAGE})


@pytest.mark.parametrize(("cached", "steps"), [(0, 51), (100, 50), (600, 50)])
def test_plain_decoding_takes_the_prompt_s_chunks_and_a_step_a_token(cached, steps):
    assert outcome(cached_tokens=cached).plain_steps(512) == steps


def test_an_entry_holds_medians_and_titles_that_came_twice():
    entry = entry_of([outcome(seconds=1), outcome(seconds=3), outcome(seconds=2, titles=("a", "a"))])
    assert (entry["seconds_p50"], entry["steps"], entry["plain_steps"]) == (2, 7, 51)
    assert entry["titles_named_twice"] == 1
    assert "7 steps instead of 51" in line_of(
        {"rows": 25, "at_once": 1, "prefix": "warm", "who": "x", **entry}
    )


def test_who_gave_up_is_said_with_the_reason():
    entry = {"rows": 25, "at_once": 1, "prefix": "cold", "who": "x", **entry_of([], "TimeoutError: ")}
    assert "failed: TimeoutError" in line_of(entry)
