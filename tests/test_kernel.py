import re
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import LLMkernel
from contract import (
    CannotDo,
    Capabilities,
    Chat,
    ChatMessage,
    Completion,
    DatabaseDown,
    Finished,
    FoundRow,
    InvalidRequest,
    JsonObject,
    ModelCard,
    OutputInvalid,
    PredictOption,
    PromptTooLong,
    Regex,
    RowsAnswer,
    RowsChanged,
    Sampling,
    Task,
    Timings,
    Token,
    Tokenize,
    TokensAnswer,
    UnknownTask,
    Usage,
    Wish,
)
from records import Database, QueryBroken
from templates import load_tasks
from tests.templates.sample_task import BOOKS, PROMPT
from workers.scripted import ScriptedModel

PROJECT = Path(__file__).resolve().parent.parent

#: Titles that a careless server breaks.
AWKWARD = (
    "Calculus",
    "Calculus II",
    'She said "no"',
    "back\\slash \\n",
    "two\nlines\r\n",
    "🚀 emoji 👩‍👩‍👧",
    "  leading and trailing  ",
    "{}",
    '"}',
    "{{ wish }}",
    "微积分之旅：从初级到高级",
)


class Library:
    """A folder with one task and an SQLite file, and everything `perform` needs."""

    def __init__(self, folder, titles, books=BOOKS):
        for name, text in (("tasks/books.toml", books), ("prompts/books.jinja", PROMPT)):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        self.path = folder / "books.db"
        self.templates = load_tasks(folder)
        self.database = Database(f"sqlite:///{self.path}")
        self.write("CREATE TABLE book (id INTEGER PRIMARY KEY, title CHAR(255))")
        for title in titles:
            self.write("INSERT INTO book (title) VALUES (?)", title)

    def write(self, statement, *values):
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)

    def perform(self, model, task):
        return LLMkernel.perform(task, model, self.templates, self.database)

    def find(self, model, wish="something", seed=7):
        """Return the text and the ending of a search."""
        task = Task("books", Wish(wish), Sampling(temperature=1.5, seed=seed))
        *tokens, ending = self.perform(model, task)
        assert all(isinstance(token, Token) for token in tokens)
        return "".join(token.text for token in tokens), ending


class SayingModel:
    """Says a text whatever it is asked, and may keep no constraint."""

    def __init__(self, text, constraints=True):
        self.card = ModelCard("saying", "saying", 8192, Capabilities(constraints=constraints))
        self._text = text

    def generate(self, messages, sampling, constraint=None, said=()):
        yield Token(0, (1,), self._text)
        return Completion(("stop",), Usage(), Timings())


@pytest.fixture
def library(tmp_path):
    def build(*titles, **options):
        return Library(tmp_path, titles, **options)

    return build


def chat_task(text="hello", **sampling):
    return Task("chat", Chat((ChatMessage("user", text),)), Sampling(**sampling))


def test_chat_yields_the_models_tokens_and_then_its_ending(library):
    model = ScriptedModel("two words")
    *tokens, ending = library().perform(model, chat_task(temperature=0.3, seed=5))
    assert "".join(token.text for token in tokens) == "two words"
    assert isinstance(ending, Finished)
    assert (ending.reason, ending.answer) == ("stop", None)
    assert ending.usage.completion_tokens == len(tokens)
    assert model.prompts == [(ChatMessage("user", "hello"),)]
    assert model.samplings == [Sampling(temperature=0.3, seed=5)]


@pytest.mark.parametrize("script", ["B", " B.", "答案是B", "A股（B）。C", "我认为选择 B"])
def test_a_predicted_option_is_the_option_alone(library, script):
    conversation = Chat((ChatMessage("user", "?"),), PredictOption(("B", "C", "D")))
    *tokens, ending = library().perform(ScriptedModel(script), Task("chat", conversation))
    assert "".join(token.text for token in tokens) == "B"
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert ending.usage.completion_tokens == sum(len(token.ids) for token in tokens)


def test_every_choice_comes_down_to_an_option(library):
    conversation = Chat((ChatMessage("user", "?"),), PredictOption(("B", "C")))
    task = Task("chat", conversation, Sampling(choices=3))
    *tokens, _ = library().perform(ScriptedModel("it is C"), task)
    assert [token.choice for token in tokens if token.text] == [0, 1, 2]
    assert {token.text for token in tokens} == {"", "C"}


def test_an_option_that_was_not_come_to_is_an_error(library):
    conversation = Chat((ChatMessage("user", "?"),), PredictOption(("B", "C")))
    task = Task("chat", conversation, Sampling(max_tokens=1))
    with pytest.raises(OutputInvalid, match="cut off"):
        list(library().perform(ScriptedModel("the B is near"), task))


def test_chat_that_reaches_its_limit_ends_with_length(library):
    *_, ending = library().perform(ScriptedModel("a b c d e"), chat_task(max_tokens=2))
    assert ending.reason == "length"


def test_a_line_break_before_the_answer_belongs_to_the_models_form_and_is_left_out(library):
    *tokens, _ = library().perform(ScriptedModel("\n\n  Hello,\n you"), chat_task())
    assert "".join(token.text for token in tokens) == "Hello,\n you"
    assert [token.index for token in tokens] == sorted(token.index for token in tokens)


def test_a_line_break_before_every_choice_is_left_out(library):
    *tokens, ending = library().perform(ScriptedModel("\n Hello"), chat_task(choices=2))
    for choice in range(2):
        assert "".join(token.text for token in tokens if token.choice == choice) == "Hello"
    assert ending.reasons == ("stop", "stop")


def test_an_answer_in_a_form_is_left_as_it_is(library):
    chat = Chat((ChatMessage("user", "hello"),), Regex(r"\s*\w+"))
    *tokens, _ = library().perform(ScriptedModel("\n Hello"), Task("chat", chat))
    assert "".join(token.text for token in tokens) == "\n Hello"


def test_a_model_that_keeps_no_constraint_is_not_asked_for_a_form(library):
    chat = Chat((ChatMessage("user", "hello"),), JsonObject())
    with pytest.raises(CannotDo, match="form: the model saying cannot keep"):
        list(library().perform(SayingModel("{}", constraints=False), Task("chat", chat)))


def test_chat_needs_no_database(library):
    shelf = library()
    shelf.path.unlink()
    assert len(list(shelf.perform(ScriptedModel(), chat_task()))) > 1


def test_closing_the_task_stops_the_model(library):
    shelf, model = library("A", "B"), ScriptedModel("a b c")
    for task in (chat_task(), Task("books", Wish("x"))):
        running = shelf.perform(model, task)
        next(running)
        running.close()
    assert model.stopped_early == 2


def test_a_search_answers_with_the_rows_of_the_chosen_titles(library):
    model = ScriptedModel(picks=["Optics", "Algebra"])
    text, ending = library("Calculus", "Algebra", "Optics").find(model, "light")
    assert text == '{"1": "Optics", "2": "Algebra"}'
    assert ending.answer == RowsAnswer(
        (FoundRow(3, {"id": 3, "title": "Optics"}), FoundRow(2, {"id": 2, "title": "Algebra"})), 3
    )


def test_a_search_is_greedy_with_the_tasks_seed_and_asks_once(library):
    model = ScriptedModel(picks=[])
    library("Calculus", "Algebra").find(model, "light", seed=11)
    assert model.samplings == [Sampling(temperature=0.0, seed=11)]
    ((message,),) = model.prompts
    assert message == ChatMessage("user", 'Books:\n"Calculus"\n"Algebra"\n\nThe reader wants: light')


def test_none_is_an_answer(library):
    text, ending = library("Calculus").find(ScriptedModel(picks=[]))
    assert (text, ending.answer) == ("{}", RowsAnswer((), 1))


def test_a_search_among_no_rows_does_not_ask_the_model(library):
    model = ScriptedModel()
    text, ending = library().find(model)
    assert (text, ending.answer) == ("{}", RowsAnswer((), 0))
    assert model.prompts == []


def test_a_title_of_several_rows_is_offered_once_and_answered_with_all_of_them(library):
    text, ending = library("Twin", "Other", "Twin").find(ScriptedModel(picks=["Twin"]))
    assert text == '{"1": "Twin"}'
    assert [row.key for row in ending.answer.rows] == [1, 3]
    assert ending.answer.considered_rows == 3


def test_rows_without_a_title_are_neither_shown_nor_considered(library):
    model = ScriptedModel(picks=["Optics"])
    _, ending = library(None, "Optics", "").find(model)
    assert ending.answer == RowsAnswer((FoundRow(2, {"id": 2, "title": "Optics"}),), 1)
    assert "null" not in model.prompts[0][0].content


def test_numbers_are_chosen_as_text_and_answered_as_numbers(library):
    shelf = library("x", "y", books=BOOKS.replace('field = "title"', 'field = "id"'))
    text, ending = shelf.find(ScriptedModel(picks=["2"]))
    assert text == '{"1": "2"}'
    assert [row.key for row in ending.answer.rows] == [2]


def test_awkward_titles_come_back_character_for_character(library):
    shelf = library(*AWKWARD)
    for title in AWKWARD:
        _, ending = shelf.find(ScriptedModel(picks=[title]))
        assert [row.fields["title"] for row in ending.answer.rows] == [title]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), titles=st.lists(st.one_of(st.sampled_from(AWKWARD), st.text(max_size=12)), max_size=8))
def test_every_choice_of_titles_comes_back_as_their_rows(data, titles):
    known = list(dict.fromkeys(title for title in titles if title))
    picks = data.draw(st.lists(st.sampled_from(known), unique=True) if known else st.just([]))
    with tempfile.TemporaryDirectory() as folder:
        model = ScriptedModel(picks=picks, context_tokens=100_000)
        _, ending = Library(Path(folder), titles).find(model)
    keys = {title: [key for key, other in enumerate(titles, 1) if other == title] for title in known}
    assert [row.key for row in ending.answer.rows] == [key for pick in picks for key in keys[pick]]
    assert all(row.fields["title"] == titles[row.key - 1] for row in ending.answer.rows)
    assert ending.answer.considered_rows == sum(map(bool, titles))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ('{"1": "Calc', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["Calculus"]', "not a JSON object"),
        ('"Calculus"', "not a JSON object"),
        ('{"1": "Physics"}', "that no row has"),
        ('{"1": "calculus"}', "that no row has"),
        ('{"1": 1}', "that no row has"),
        ('{"1": {"1": "Calculus"}}', "that no row has"),
        ('{"2": "Calculus"}', "does not number"),
        ('{"1": "Calculus", "1": "Optics"}', "does not number"),
        ('{"1": "Calculus", "2": "Calculus"}', "a value twice"),
        ('{"1": "Calculus", "2": "Optics", "3": "Algebra"}', "3 values, more than 2"),
        ("{}", "must choose"),
        ('```json\n{"1": "Calculus"}\n```', "not JSON"),
    ],
)
def test_an_answer_that_breaks_its_promise_is_an_error(library, text, complaint):
    books = BOOKS.replace("at_most = 10", "at_most = 2").replace("allowed = true", "allowed = false")
    with pytest.raises(OutputInvalid, match=complaint):
        library("Calculus", "Algebra", "Optics", books=books).find(SayingModel(text))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM book WHERE id = 2",
        "UPDATE book SET title = 'Renamed' WHERE id = 2",
        "UPDATE book SET id = 20 WHERE id = 2",
    ],
)
def test_a_chosen_row_that_changes_meanwhile_fails_the_task(library, statement):
    shelf = library("Calculus", "Algebra")
    running = shelf.perform(ScriptedModel(picks=["Algebra"]), Task("books", Wish("x")))
    next(running)
    shelf.write(statement)
    with pytest.raises(RowsChanged):
        list(running)


def test_a_change_of_other_rows_does_not_matter(library):
    shelf = library("Calculus", "Algebra")
    running = shelf.perform(ScriptedModel(picks=["Algebra"]), Task("books", Wish("x")))
    next(running)
    shelf.write("DELETE FROM book WHERE id = 1")
    assert [row.key for row in list(running)[-1].answer.rows] == [2]


def test_a_database_that_is_down_fails_the_task_and_the_next_one_works(library):
    shelf = library("Calculus")
    away = shelf.path.rename(shelf.path.with_suffix(".away"))
    with pytest.raises(DatabaseDown):
        shelf.find(ScriptedModel())
    away.rename(shelf.path)
    assert shelf.find(ScriptedModel())[1].answer.considered_rows == 1


def test_an_answer_column_that_the_query_lacks_is_named(library):
    shelf = library("Calculus", books=BOOKS.replace('field = "title"', 'field = "author"'))
    with pytest.raises(QueryBroken, match="no column 'author'"):
        shelf.find(ScriptedModel())


def test_the_models_own_errors_pass_through(library):
    with pytest.raises(PromptTooLong):
        library("Calculus").find(ScriptedModel(context_tokens=4))


def test_a_model_that_keeps_no_constraint_is_not_asked(library):
    with pytest.raises(CannotDo, match="books needs a constraint, which the model saying cannot keep"):
        library("Calculus").find(SayingModel('{"1": "Calculus"}', constraints=False))


def test_a_text_is_split_into_the_models_tokens(library):
    (ending,) = library().perform(ScriptedModel(), Task("tokenize", Tokenize("two words")))
    assert ending.answer == TokensAnswer(("two", " word", "s"))


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        (Task("chat", Wish("x")), InvalidRequest, "chat takes messages"),
        (Task("tokenize", Wish("x")), InvalidRequest, "tokenize takes a text"),
        (Task("chat", Tokenize("x")), InvalidRequest, "chat takes messages"),
        (Task("books", Chat((ChatMessage("user", "x"),))), InvalidRequest, "books takes a wish"),
        (Task("shelves", Wish("x")), UnknownTask, "none named 'shelves', only chat, tokenize, books"),
    ],
)
def test_a_task_that_cannot_be_done_is_told_why(library, task, error, words):
    with pytest.raises(error, match=words):
        list(library("Calculus").perform(ScriptedModel(), task))


def test_the_documented_second_task_works_as_written(tmp_path):
    page = (PROJECT / "docs" / "tasks.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert set(blocks) == {
        "templates/tasks/course_retrieval.toml",
        "templates/prompts/course_retrieval.jinja",
        "course.sql",
    }
    for name in ("tasks/course_retrieval.toml", "prompts/course_retrieval.jinja"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(blocks[f"templates/{name}"], encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "school.db")) as connection:
        connection.executescript(blocks["course.sql"])
    database = Database(f"sqlite:///{tmp_path / 'school.db'}")
    model = ScriptedModel(picks=["Watercolours"])
    task = Task("course_retrieval", Wish("I want to paint"))
    *_, ending = LLMkernel.perform(task, model, load_tasks(tmp_path), database)
    assert [(row.key, row.fields["name"]) for row in ending.answer.rows] == [(2, "Watercolours")]
    assert ending.answer.considered_rows == 3
    assert '"Watercolours" (Tuesday)' in model.prompts[0][0].content
    assert model.prompts[0][0].content.endswith("I want to paint")
