"""The results file: whole lines, one writer, the same conditions and the same questions."""

import pytest

from evals.ceval.errors import BadResults
from evals.ceval.results import Answer, Conditions, Results
from tests.evals.exam_servers import exam_of

CONDITIONS = Conditions(split="val", shots=0, predicts=True, max_tokens=None, model=None)
EXAM = exam_of()


def answer_to(one, letter="A"):
    return Answer(*one.key, one.digest, letter, 0.5)


@pytest.fixture
def path(tmp_path):
    """The file of a run that was given up after two answers."""
    path = tmp_path / "folder" / "run.jsonl"
    with Results(path, CONDITIONS) as results:
        results.add(answer_to(EXAM[0]))
        results.add(answer_to(EXAM[3], "D"))
    return path


def test_answers_are_found_again_and_only_the_rest_is_missing(path):
    with Results(path, CONDITIONS) as results:
        assert [answer.answer for answer in results.answers.values()] == ["A", "D"]
        missing = results.missing(EXAM)
    assert missing == {number: one.prompt for number, one in enumerate(EXAM) if number not in (0, 3)}


def test_each_answer_is_in_the_file_before_the_next(path):
    with Results(path, CONDITIONS) as results:
        results.add(answer_to(EXAM[1]))
        assert path.read_bytes().count(b"\n") == 4
        assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_half_a_last_line_is_dropped_and_asked_again(path, cut):
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    with Results(path, CONDITIONS) as results:
        assert list(results.answers) == [EXAM[0].key]
        results.add(answer_to(EXAM[3], "D"))
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 30])
def test_a_run_killed_in_its_first_line_begins_anew(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with Results(path, CONDITIONS) as results:
        assert results.answers == {}
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shots": 5}, "was begun with shots 0, not 5"),
        ({"split": "dev"}, "was begun with split val, not dev"),
        ({"predicts": False}, "was begun with predicts True, not False"),
        ({"model": "glm"}, "was begun with model None, not glm"),
    ],
)
def test_other_conditions_need_another_file(path, change, words):
    fields = {name: getattr(CONDITIONS, name) for name in Conditions.__struct_fields__}
    with pytest.raises(BadResults, match=words):
        Results(path, Conditions(**fields | change))


def test_an_answer_to_other_words_is_not_taken_for_one_to_these(path):
    with (
        Results(path, CONDITIONS) as results,
        pytest.raises(BadResults, match="holds an answer to other words of computer_network 0"),
    ):
        results.missing(exam_of(shots=5))


@pytest.mark.parametrize("content", ['{"law": {"0": "A"}}', "a\nletter\n", '{"split":"val"}\n'])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadResults):
        Results(path, CONDITIONS)
    assert path.read_text(encoding="utf-8") == content


def test_a_broken_line_within_is_refused_by_its_number(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"broken\n" + lines[2])
    with pytest.raises(BadResults, match=r"run\.jsonl:2: is no line of a results file"):
        Results(path, CONDITIONS)


def test_two_runs_cannot_write_the_same_file(path):
    with Results(path, CONDITIONS), pytest.raises(BadResults, match="another run is writing it"):
        Results(path, CONDITIONS)
    Results(path, CONDITIONS).__exit__()
