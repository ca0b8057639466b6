"""The documents tell of everything that is there, and what is generated in them is current."""

import re
from pathlib import Path

import pytest

from contract import ServingError
from gateway import create_app
from scripts import paste_help
from settings import OLDER_FLAGS, flag, specs, variable
from tests.gateway.memory_bus import MemoryBus

DOCS = Path(__file__).parents[1] / "docs"


def text(name):
    return (DOCS / name).read_text(encoding="utf-8")


def rows(page):
    """Every table row of a page as its cells."""
    lines = [line for line in text(page).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def family(error):
    return [error, *(one for child in error.__subclasses__() for one in family(child))]


def errors():
    return [one for one in family(ServingError) if one.__module__ == "contract.errors"]


def routes():
    app = create_app(MemoryBus())
    return sorted({rule.rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"})


def test_the_tables_of_settings_are_current():
    page = text("settings.md")
    assert paste_help.pasted(page) == page, "run: python -m scripts.paste_help"


@pytest.mark.parametrize("name", specs())
def test_every_setting_stands_in_the_docs(name):
    (row,) = [row for row in rows("settings.md") if row[0].split()[0].strip("`") == flag(name)]
    assert row[1] == f"`{variable(name)}`"


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.code)
def test_every_error_code_stands_in_the_docs_with_status_meaning_and_advice(error):
    ((_, status, meaning, advice),) = [row for row in rows("errors.md") if row[0] == f"`{error.code}`"]
    assert int(status) == error.status
    assert meaning
    assert advice


def test_every_error_code_of_the_docs_exists():
    told = {row[0].strip("`") for row in rows("errors.md")} - {"code"}
    assert told == {error.code for error in errors()}


@pytest.mark.parametrize("route", routes())
def test_every_route_stands_in_the_docs(route):
    assert f"`{route}`" in text("api.md") or f" {route}`" in text("api.md")


@pytest.mark.parametrize("page", sorted(DOCS.glob("coming_from/*.md")), ids=lambda page: page.stem)
def test_a_page_for_those_who_come_from_elsewhere_names_only_flags_that_are_there(page):
    told = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", page.read_text(encoding="utf-8")))
    older = {one for older in OLDER_FLAGS.values() for one in older.flags}
    assert told <= older | {flag(name) for name in specs()}


def test_every_older_flag_stands_on_a_page_for_those_who_come_from_elsewhere():
    pages = " ".join(page.read_text(encoding="utf-8") for page in DOCS.glob("coming_from/*.md"))
    for older in OLDER_FLAGS.values():
        assert any(f"`{one} " in pages for one in older.flags), older.flags
