"""The held-out measurement: what it counts, what it asks, and where it writes."""

import datetime
from random import Random

import pytest

from demo.held_out import is_held_out
from evals.tally import Tally

pytest.importorskip("torch")

from evals.retrieval import (
    CLASSIC_WISHES,
    FIRST_MARK,
    LAST_MARK,
    SIZES,
    classic_questions,
    held_out_questions,
    report,
    write_into_card,
)


def test_tally_counts_titles_and_nones():
    tally = Tally()
    tally.count(["a", "b"], ["a", "c"])
    tally.count([], [])
    tally.count(["a"], [])
    assert (tally.precision, tally.recall) == (1 / 3, 1 / 2)
    assert tally.f1 == pytest.approx(2 / 5)
    assert (tally.none_recognised, tally.exact_share) == (1 / 2, 1 / 3)


def test_titles_in_another_order_are_found_but_not_exact():
    tally = Tally()
    tally.count(["b", "a"], ["a", "b"])
    assert (tally.f1, tally.exact_share) == (1.0, 0.0)


def test_held_out_questions_hold_nothing_that_training_saw():
    questions = list(held_out_questions(10, 6, Random(1)))
    assert all(is_held_out(title) for question in questions for title in question.titles)
    known = [question for question in questions if question.fitting]
    assert known
    assert all(is_held_out(question.wish) for question in known)


def test_the_classic_derivative_wish_means_the_five_calculus_books():
    first = next(classic_questions())
    assert first.wish == "帮我找找有关函数求导的书"
    assert len(first.fitting) == 5
    assert all("微积分" in title for title in first.fitting)
    assert len(list(classic_questions())) == len(CLASSIC_WISHES)


def test_figures_stand_between_the_marks_of_the_card(tmp_path):
    card = tmp_path / "README.md"
    card.write_text(f"before\n{FIRST_MARK}\nold\n{LAST_MARK}\nafter\n", "utf-8")
    figures = report({size: Tally() for size in SIZES}, Tally(), datetime.date(2026, 1, 2))
    write_into_card(card, figures)
    text = card.read_text("utf-8")
    assert text == f"before\n{FIRST_MARK}\n{figures}\n{LAST_MARK}\nafter\n"
    assert "2026-01-02" in figures


def test_a_card_without_marks_is_refused(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match="must hold"):
        write_into_card(card, "figures")
