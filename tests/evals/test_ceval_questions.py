"""C-Eval's files: what is read, what is refused, and with which words."""

import shutil
from collections import Counter

import pytest

from evals.ceval.errors import BadQuestions, ExamError
from evals.ceval.questions import find_file, find_subjects, read_questions
from evals.ceval.subjects import choose_subjects, load_subjects
from tests.evals.exam_servers import QUESTIONS, SUBJECTS

HEADER = "id,question,A,B,C,D,answer\n"


def written(folder, content, name="law_val.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_c_eval_has_52_subjects_in_four_categories_and_eight_of_them_are_hard():
    subjects = load_subjects().values()
    counts = Counter(subject.category for subject in subjects)
    assert counts == {"STEM": 20, "Social Science": 10, "Humanities": 11, "Other": 11}
    assert sum(subject.is_hard for subject in subjects) == 8
    assert len({subject.chinese_name for subject in subjects}) == 52


def test_subjects_come_in_the_order_of_c_eval():
    names = [subject.name for subject in choose_subjects(["law", "operating_system"])]
    assert names == ["operating_system", "law"]


def test_a_subject_that_is_none_is_refused_by_name():
    with pytest.raises(ExamError, match=r"^cooking: is none of C-Eval's subjects, which are computer_netw"):
        choose_subjects(["law", "cooking"])


def test_a_question_is_read_with_its_options_and_its_answer():
    first, *_, last = read_questions(QUESTIONS / "computer_network_dev.csv", "computer_network", "dev")
    assert (first.id, first.answer, first.options) == ("0", "D", ("21", "25", "80", "443"))
    assert first.text == "网页浏览器访问加密网站时，默认连接服务器的哪个端口？"
    assert last.id == "4"  # although the explanation before it has two lines


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_marks_and_line_ends_make_no_difference(tmp_path, mark, end):
    content = f'{HEADER}0,"一，二""三""",a,b,c,d,B\n\n1,q,a,b,c,d,A\n'.replace("\n", end).encode()
    questions = read_questions(written(tmp_path, mark + content), "law", "val")
    assert [(one.id, one.text, one.answer) for one in questions] == [
        ("0", '一，二"三"', "B"),
        ("1", "q", "A"),
    ]


@pytest.mark.parametrize("header", [HEADER, "id,question,A,B,C,D\n"], ids=["column", "no column"])
def test_the_test_split_has_no_answers(tmp_path, header):
    row = "0,q,a,b,c,d" + (",\n" if "answer" in header else "\n")
    (question,) = read_questions(written(tmp_path, header + row), "law", "test")
    assert question.answer is None


@pytest.mark.parametrize(
    ("content", "place", "rule"),
    [
        ("", 1, "must have one column id"),
        ("id,question,A,B,C,answer\n", 1, "must have one column D, got id,question,A,B,C,answer"),
        ("id,question,A,B,C,D\n", 1, "must have one column answer"),
        ("id,id,question,A,B,C,D,answer\n", 1, "must have one column id"),
        (HEADER, 1, "must hold questions"),
        (HEADER + "0,q,a,b,c,d,A\n1,q,a,b,c,A\n", 3, "must have 7 fields, got 6"),
        (HEADER + '0,"two\nlines",a,b,c,d,A\n1,q,a,b,c,d,E\n', 4, "must be one of A, B, C and D, got 'E'"),
        (HEADER + "0,q,a,b,c,d,\n", 2, "answer must be one of A, B, C and D, got ''"),
        (HEADER + "x,q,a,b,c,d,A\n", 2, "id must be a whole number, got 'x'"),
        (HEADER + "0,q,a,b,c,d,A\n0,q,a,b,c,d,A\n", 3, "id must be there once, got 0 again"),
        (HEADER + "0, ,a,b,c,d,A\n", 2, "question must not be empty"),
        (HEADER + '0,q,a,b,c,d,A\n1,"q,a,b,c,d,A\n', 3, "must be CSV, got unexpected end of data"),
        (HEADER.encode() + "0,题,a,b,c,d,A\n".encode("gbk"), 2, "must be UTF-8, got the byte 0xcc"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, content, place, rule):
    path = written(tmp_path, content)
    with pytest.raises(BadQuestions) as caught:
        read_questions(path, "law", "val")
    assert str(caught.value).startswith(f"{path}:{place}: ")
    assert rule in str(caught.value)


def test_files_may_lie_in_a_folder_for_each_split(tmp_path):
    for split in ("dev", "val"):
        (tmp_path / split).mkdir()
        shutil.copy(QUESTIONS / f"computer_network_{split}.csv", tmp_path / split)
    assert find_subjects(tmp_path, "val") == ["computer_network"]
    path = tmp_path / "dev" / "computer_network_dev.csv"
    assert find_file(tmp_path, "computer_network", "dev") == path


def test_all_subjects_of_a_folder_are_found():
    assert set(find_subjects(QUESTIONS, "val")) == set(SUBJECTS)


def test_a_folder_without_questions_or_with_strange_ones_is_refused(tmp_path):
    with pytest.raises(ExamError, match=r"holds no file SUBJECT_val\.csv"):
        find_subjects(tmp_path, "val")
    with pytest.raises(ExamError, match=r"holds neither law_val\.csv nor val/law_val\.csv"):
        find_file(tmp_path, "law", "val")
    written(tmp_path, HEADER, "cooking_val.csv")
    with pytest.raises(ExamError, match=r"cooking_val\.csv is of none of C-Eval's subjects"):
        find_subjects(tmp_path, "val")
