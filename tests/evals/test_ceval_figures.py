"""Letters, figures, submission and plot."""

import json

import pytest

pytest.importorskip("matplotlib")

from evals.ceval.letters import first_letter, last_letter
from evals.ceval.plot import draw_scores, write_plot
from evals.ceval.report import render_report, write_submission
from evals.ceval.scores import average_categories, score_subjects
from tests.evals.exam_servers import exam_of

EXAM = exam_of()
ALWAYS_A = {one.key: "A" for one in EXAM}


@pytest.mark.parametrize(
    ("answer", "last", "first"),
    [
        ("B", "B", "B"),
        ("答案：C", "C", "C"),
        ("C。", None, "C"),
        ("选B，因为A不对。D", "D", "B"),
        ("Both are wrong, so (D)", None, "D"),
        ("TCP", None, None),
        ("b", None, None),
        ("", None, None),
    ],
)
def test_a_letter_is_read_at_the_end_or_where_it_first_stands_alone(answer, last, first):
    assert (last_letter(answer), first_letter(answer)) == (last, first)


def test_always_a_scores_what_the_answer_key_says():
    scores = score_subjects(EXAM, ALWAYS_A)
    assert {subject.name: (score.right, score.questions) for subject, score in scores.items()} == {
        "computer_network": (1, 4),
        "high_school_physics": (1, 3),
        "college_economics": (1, 3),
        "middle_school_history": (1, 4),
        "civil_servant": (1, 5),
    }


def test_averages_count_each_subject_the_same():
    averages = average_categories(score_subjects(EXAM, ALWAYS_A))
    assert averages["All"].accuracy == pytest.approx((1 / 4 + 1 / 3 + 1 / 3 + 1 / 4 + 1 / 5) / 5)
    assert (averages["All"].right, averages["All"].questions, averages["All"].subjects) == (5, 19, 5)
    assert averages["STEM"].accuracy == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert averages["Humanities"].accuracy == 1 / 4
    assert averages["Social Science"].accuracy == 1 / 3
    assert averages["Other"].accuracy == 1 / 5
    assert (averages["Hard"].subjects, averages["Hard"].accuracy) == (1, 1 / 3)


def test_no_letter_and_no_answer_are_not_right():
    letters = {EXAM[0].key: None, EXAM[1].key: EXAM[1].question.answer}
    scores = score_subjects(EXAM[:3], letters)
    assert [(score.right, score.questions) for score in scores.values()] == [(1, 3)]
    assert "Hard" not in average_categories(scores)


def test_the_report_has_a_row_for_each_category_and_subject():
    scores = score_subjects(EXAM, ALWAYS_A)
    report = render_report(scores, average_categories(scores)).splitlines()
    assert "| All | 5 | 19 | 5 | 27.3% |" in report
    assert "| Hard | 1 | 3 | 1 | 33.3% |" in report
    assert "| civil_servant | Other | 5 | 1 | 20.0% |" in report


def test_a_submission_has_the_form_that_c_eval_takes(tmp_path):
    path = tmp_path / "folder" / "submission.json"
    letters = {one.key: "B" for one in EXAM} | {EXAM[1].key: None}
    write_submission(path, EXAM, letters)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["computer_network"] == {"0": "B", "1": "", "2": "B", "3": "B"}
    assert [len(answers) for answers in content.values()] == [4, 3, 3, 4, 5]
    assert list(path.parent.iterdir()) == [path]


def test_the_plot_shows_each_subject_and_is_the_same_each_time(tmp_path):
    scores = score_subjects(EXAM, ALWAYS_A)
    for name in ("one.svg", "two.svg", "three.png"):
        figure = draw_scores(scores, average_categories(scores), "C-Eval")
        write_plot(tmp_path / name, figure)
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {words} -->" in drawn for words in ("high school physics", "Hard", "27.3", "C-Eval"))
    assert drawn == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert (tmp_path / "three.png").read_bytes().startswith(b"\x89PNG")
