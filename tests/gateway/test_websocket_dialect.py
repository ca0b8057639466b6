import json

import pytest

from contract import GREEDY, Chat, ChatMessage, Failed, Finished, PredictOption, Speed, Timings, Token
from gateway import Limits
from gateway.dialects.websocket import (
    Refusal,
    parse_frame,
    render_answer,
    render_control,
    render_failed,
)

LIMITS = Limits(prompt_characters=100, json_depth=5)


def parsed(**fields):
    return parse_frame(json.dumps(fields), LIMITS)


def refused(frame, limits=LIMITS):
    with pytest.raises(Refusal) as caught:
        parse_frame(frame, limits)
    return caught.value


def test_a_question_is_one_turn_answered_greedily_to_its_end():
    question = parsed(id=7, question="1+1=?")
    assert question.id == 7
    assert question.task.name == "chat"
    assert question.task.input == Chat((ChatMessage("user", "1+1=?"),))
    assert question.task.sampling == GREEDY
    assert not question.wants_ids


def test_forward_times_bounds_the_tokens_and_nothing_does_without():
    assert parsed(id=1, question="q", forward_times=3).task.sampling.max_tokens == 3
    assert parsed(id=1, question="q", forward_times=0).task.sampling.max_tokens is None


def test_ids_are_answered_only_where_text_is_not_wanted():
    assert parsed(id=1, question="q", is_decode=False).wants_ids
    assert not parsed(id=1, question="q", is_decode=True).wants_ids


def test_an_option_is_predicted_whatever_the_other_fields_say():
    question = parsed(id=1, question="q", is_predict_option=True, is_decode=False, forward_times=2)
    assert question.task.input.form == PredictOption(("A", "B", "C", "D"))
    assert question.task.sampling == GREEDY
    assert not question.wants_ids


@pytest.mark.parametrize("word", ["tps", "ftl"])
def test_the_two_control_frames_are_exact(word):
    assert parse_frame(word, LIMITS) == word
    for other in (word.upper(), f" {word}", f"{word}\n", f'"{word}"'):
        assert refused(other).id is None


IDS = [0, -1, 2**53 + 1, 10**30, 1.5, "x", "", "😀\n", None, True, [], [1, {"a": None}], {"id": 2}]


@pytest.mark.parametrize("id_", IDS, ids=repr)
def test_any_json_value_is_an_id_and_comes_back(id_):
    question = parsed(id=id_, question="q")
    answer = json.loads(render_answer(question, [], Finished()))
    assert (answer["id"], type(answer["id"])) == (id_, type(id_))
    refusal = refused(json.dumps({"id": id_, "question": 5}))
    answer = json.loads(render_failed(refusal.id, refusal.failed))
    assert (answer["id"], type(answer["id"])) == (id_, type(id_))


@pytest.mark.parametrize(
    ("frame", "id_", "words"),
    [
        ("", None, "frame: must be a JSON object, got nothing"),
        ("hello", None, "frame: must be JSON"),
        ('{"id": 1, "question": "q"', None, "frame: must be JSON"),
        ('{"id": NaN, "question": "q"}', None, "frame: must be JSON"),
        ('{"id": 1e999, "question": "q"}', None, "frame: must be JSON"),
        ('{"id": 1, "question": "\ud800"}', None, "frame: must be"),
        ('{"id": 1, "question": "\\ud800"}', None, "frame: must be JSON"),
        ("[1]", None, "frame: must be an object, got [1]"),
        ("5", None, "frame: must be an object, got 5"),
        ("null", None, "frame: must be an object, got null"),
        ("[" * 6 + "]" * 6, None, "frame: JSON must nest at most 5 levels deep"),
        ("{}", None, "is required"),
        ('{"question": "q"}', None, "id: is required"),
        ('{"id": 3}', 3, "question: is required"),
        ('{"id": 3, "question": 5}', 3, "question: must be a string, got 5"),
        ('{"id": 3, "question": null}', 3, "question: must be a string, got null"),
        ('{"id": 3, "question": ""}', 3, "question: must have at least 1 characters"),
        ('{"id": 3, "question": " \\n"}', 3, "question: must not be blank"),
        (
            '{"id": 3, "question": "%s"}' % ("x" * 101),
            3,
            "question: must have at most 100 characters, got 101",
        ),
        ('{"id": 3, "question": "q", "is_decode": 1}', 3, "is_decode: must be true or false, got 1"),
        ('{"id": 3, "question": "q", "is_predict_option": "no"}', 3, "is_predict_option: must be"),
        ('{"id": 3, "question": "q", "forward_times": -1}', 3, "forward_times: must be >= 0, got -1"),
        ('{"id": 3, "question": "q", "forward_times": 1.5}', 3, "forward_times: must be an integer, got 1.5"),
        ('{"id": 3, "question": "q", "forward_times": true}', 3, "forward_times: must be an integer"),
        ('{"id": 3, "question": "q", "forward_times": 99999999}', 3, "forward_times: must be <= 1048576"),
        ('{"id": 3, "question": "q", "history": []}', 3, "history: unknown field"),
        (b'{"id": 3, "question": "q"}', None, "frame: must be text in UTF-8"),
        (b"\xff", None, "frame: must be text in UTF-8"),
    ],
)
def test_a_bad_frame_is_refused_by_field_and_rule_with_its_id_if_it_has_one(frame, id_, words):
    refusal = refused(frame)
    assert refusal.id == id_
    assert refusal.failed.code == "invalid_request"
    assert words in refusal.failed.message
    assert set(json.loads(render_failed(refusal.id, refusal.failed))) == {"id", "error"}


def test_an_answer_is_one_line_of_json_with_its_characters_as_they_are():
    tokens = [Token(0, (5,), "你"), Token(1, (6, 7), '好"\n')]
    finished = Finished(timings=Timings(1.1623857021331787, 9.0))
    assert (
        render_answer(parsed(id=0, question="q"), tokens, finished)
        == '{"id": 0, "answer": "你好\\"\\n", "ftl": 1.1623857021331787}'
    )
    assert (
        render_answer(parsed(id="a", question="q", is_decode=False), tokens, finished)
        == '{"id": "a", "answer": [5, 6, 7], "ftl": 1.1623857021331787}'
    )


def test_a_failure_says_code_and_message_only():
    failed = Failed("worker_lost", "the worker was lost", 503, True, 1.0)
    assert (
        render_failed([1], failed)
        == '{"id": [1], "error": {"code": "worker_lost", "message": "the worker was lost"}}'
    )


def test_before_any_work_both_speeds_are_nought():
    assert render_control("tps", []) == render_control("ftl", [Speed()]) == "0.0"


def test_the_speeds_of_all_workers_are_one():
    speeds = [Speed(2, 3.0, 100, 4.0), Speed(1, 0.0, 50, 1.0)]
    assert render_control("tps", speeds) == "30.0"
    assert render_control("ftl", speeds) == "1.0"
