import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import ChatMessage, Failed, InvalidRequest, NoWorker
from gateway.dialects import yuan
from gateway.limits import Limits

LIMITS = Limits()
ASKED = [{"question": "你好", "answer": ""}]


def subscribe(messages=ASKED, **fields):
    return yuan.parse_subscribe(json.dumps({"messages": messages, **fields}).encode(), LIMITS)


def infer(*texts, **fields):
    ques_list = [{"id": str(number), "ques": text} for number, text in enumerate(texts)]
    return yuan.parse_infer(json.dumps({"ques_list": ques_list, **fields}).encode(), LIMITS)


def test_the_defaults_are_those_of_the_page():
    task, wants_growth = subscribe()
    sampling = task.sampling
    assert task.input.messages == (ChatMessage("user", "你好"),)
    assert task.input.drops_history
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 0)
    assert (sampling.max_tokens, wants_growth) == (5000, False)


def test_turns_become_messages():
    turns = [
        {"question": "a", "answer": "b"},
        {"question": "c", "answer": "d"},
        {"question": "e", "answer": ""},
    ]
    messages = subscribe(turns)[0].input.messages
    assert [message.role for message in messages] == ["user", "assistant"] * 2 + ["user"]
    assert [message.content for message in messages] == list("abcde")


def test_a_turn_without_its_answer_is_left_out():
    turns = [
        {"question": "a", "answer": ""},
        {"question": " ", "answer": "d"},
        {"question": "e", "answer": ""},
    ]
    assert [message.content for message in subscribe(turns)[0].input.messages] == ["e"]


@pytest.mark.parametrize(
    ("top_p", "top_k", "expected"),
    [
        (0.95, 0, (0.95, 0)),
        (1.0, 5, (1.0, 5)),
        (0.5, 5, (1.0, 5)),
        (0.5, 2, (1.0, 2)),
        (0.5, 1, (0.5, 0)),
        (0, 1, (1.0, 1)),
        (0, 0, (1.0, 0)),
        (0, 10, (1.0, 10)),
    ],
)
def test_top_p_and_top_k_exclude_each_other(top_p, top_k, expected):
    sampling = subscribe(top_p=top_p, top_k=top_k)[0].sampling
    assert (sampling.top_p, sampling.top_k) == expected


def test_zero_switches_off():
    sampling = subscribe(response_length=0, temperature=0)[0].sampling
    assert (sampling.max_tokens, sampling.temperature) == (None, 0)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"response_length": -1}, "response_length: must be >= 0, got -1"),
        ({"response_length": 8001}, "response_length: must be <= 8000, got 8001"),
        ({"response_length": 5.5}, "response_length: must be an integer"),
        ({"temperature": -0.1}, "temperature: must be >= 0"),
        ({"temperature": 1.1}, "temperature: must be <= 1, got 1.1"),
        ({"temperature": "0.5"}, "temperature: must be a number"),
        ({"top_p": 1.5}, "top_p: must be <= 1"),
        ({"top_k": 11}, "top_k: must be <= 10, got 11"),
        ({"top_k": -1}, "top_k: must be >= 0"),
        ({"stream": 1}, "stream: must be true or false"),
        ({"browser_flag": True}, "browser_flag"),
        ({"nonsense": 1}, "nonsense: unknown field"),
        ({"messages": []}, "messages: must have at least 1 entries"),
        ({"messages": "hi"}, "messages: must be a list"),
        ({"messages": [{"question": "a"}]}, "messages[0].answer: is required"),
        ({"messages": [{"question": "a", "answer": "b"}]}, 'messages[0].answer: must be ""'),
        ({"messages": [{"question": " ", "answer": ""}]}, "messages[0].question: must not be blank"),
        ({"messages": [{"question": "x" * 400_001, "answer": ""}]}, "messages: must hold at most 400000"),
        ({"messages": [{"question": "a", "answer": "b"}] * 600 + ASKED}, "messages: must have at most 500"),
    ],
)
def test_a_field_out_of_its_range_is_told_by_name(fields, complaint):
    with pytest.raises(InvalidRequest) as refused:
        subscribe(**fields)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 100, b'{"messages": null}'])
def test_a_body_that_is_none_is_told(body):
    for parse in (yuan.parse_subscribe, yuan.parse_infer):
        with pytest.raises(InvalidRequest):
            parse(body, LIMITS)


def test_fields_of_the_pages_web_search_are_taken_while_that_is_off():
    task, _ = subscribe(
        browser_flag=False, retrieve_topk=3, template="", access_key="", embeddings_model_path=""
    )
    assert task.input.messages[0].content == "你好"


def test_marks_mean_what_they_mean():
    assert yuan.clean('<unk>One▂"two"<n>Three▃four<eod>') == 'One "two"\nThree\nfour'


@given(st.text())
def test_a_text_without_marks_stays_as_it_is(text):
    if not any(mark in text for mark in ("<unk>", "<eod>", "<n>", "▃", "▂")):
        assert yuan.clean(text) == text


def test_an_answer_is_these_bytes():
    assert yuan.render_answer("你 好", 1795243224.312).decode() == (
        'data: {"flag":true,"errCode":"","errMessage":"","exceptionMsg":"",'
        '"resData":{"message":"你 好","time":1795243224312}}\r\n\r\n'
    )


def test_a_failure_is_an_event_that_the_page_shows():
    event = yuan.render_failed_event(Failed.from_error(NoWorker("nobody is there")), 5.0)
    data = json.loads(event.removeprefix(b"data: "))
    assert data["flag"] is True
    assert data["resData"]["message"] == "没有得到回答 (no answer): nobody is there"
    assert (data["errCode"], data["errMessage"], data["exceptionMsg"]) == (
        "no_worker",
        "nobody is there",
        "nobody is there",
    )


def test_a_ping_is_a_comment_with_the_time():
    assert yuan.render_ping(0.5) == b": ping - 1970-01-01 00:00:00.500000+00:00\r\n\r\n"


def test_questions_of_the_inference_server_become_tasks():
    first, second = infer(
        "你好<n>再见<sep>", "hello", tokens_to_generate=9, temperature=0.5, top_p=0.9, top_k=4
    )
    assert (first.id, second.id) == ("0", "1")
    assert first.task.input.messages == (ChatMessage("user", "你好\n再见"),)
    sampling = second.task.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (9, 0.5, 0.9, 4)
    assert first.task.task_id != second.task.task_id


def test_defaults_of_the_inference_server():
    (asked,) = infer("hi")
    sampling = asked.task.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (1024, 1.0, 1.0, 0)
    (greedy,) = infer("hi", do_sample=False)
    assert greedy.task.sampling.temperature == 0


def test_a_question_may_have_a_number_or_no_name():
    body = {"ques_list": [{"id": 7, "ques": "a"}, {"ques": "b"}]}
    assert [one.id for one in yuan.parse_infer(json.dumps(body).encode(), LIMITS)] == ["7", "0"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"ques_list": []}, "ques_list: must have at least 1"),
        ({"ques_list": [{"ques": "a"}] * 129}, "ques_list: must have at most 128"),
        ({"ques_list": [{"ques": ""}]}, "ques_list[0].ques: must not be blank"),
        ({"ques_list": [{"ques": "a"}, {"ques": "<n><sep>"}]}, "ques_list[1].ques: must not be blank"),
        ({"ques_list": [{"id": "1"}]}, "ques_list[0].ques: is required"),
        ({"ques_list": [{"ques": "x" * 200_001}] * 2}, "ques_list: must hold at most 400000"),
        ({"tokens_to_generate": 0}, "tokens_to_generate: must be >= 1"),
        ({"temperature": 0}, "temperature: must be > 0"),
        ({"temperature": 2.5}, "temperature: must be <= 2"),
        ({"top_k": 1001}, "top_k: must be <= 1000"),
        ({"top_p": 1.1}, "top_p: must be <= 1"),
        ({"beam_width": 3}, "beam_width: unknown field"),
    ],
)
def test_what_the_inference_server_refuses_is_told_by_name(fields, complaint):
    with pytest.raises(InvalidRequest) as refused:
        yuan.parse_infer(json.dumps({"ques_list": [{"ques": "a"}], **fields}).encode(), LIMITS)
    assert complaint in str(refused.value)


def test_failures_of_the_inference_server_say_whose_they_are():
    told = yuan.render_failed(Failed.from_error(InvalidRequest("top_k: must be <= 1000")))
    assert told == {
        "flag": False,
        "errCode": 1,
        "errMessage": "top_k: must be <= 1000",
        "successMessage": "",
        "exceptionMsg": "top_k: must be <= 1000",
        "resData": {},
    }
    assert yuan.render_failed(Failed.from_error(NoWorker("none")))["errCode"] == 2
