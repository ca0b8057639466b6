import json

import pytest

from contract import GREEDY, Chat, ChatMessage, Finished, InvalidRequest, OutputInvalid, RowsAnswer, Wish
from gateway import Limits
from gateway.dialects import glm4_web
from tests.gateway.memory_bus import BOOKS_TEXT, ROWS

LIMITS = Limits(prompt_characters=5000)
SHAPES = [("msg", glm4_web.GatewayBody), ("prompt", glm4_web.KernelBody)]


def body(**fields):
    return json.dumps(fields, ensure_ascii=False).encode()


@pytest.mark.parametrize(("name", "shape"), SHAPES)
@pytest.mark.parametrize(("temperature", "meant"), [(0.5, 0.5), (1, 1.0), ("0.7", 0.7), ("2", 2.0), (0, 0.0)])
def test_a_number_may_come_as_a_numeric_string(name, shape, temperature, meant):
    task = glm4_web.parse_chat(body(**{name: "你好", "temperature": temperature}), shape, LIMITS)
    assert task.input == Chat((ChatMessage("user", "你好"),))
    assert task.sampling.temperature == meant


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"msg": "x"}, "temperature: is required"),
        ({"temperature": 1}, "msg: is required"),
        ({"msg": "", "temperature": 1}, "msg: must have at least 1 characters, got 0"),
        ({"msg": "  ", "temperature": 1}, "msg: must not be blank"),
        ({"msg": 3, "temperature": 1}, "msg: must be a string, got 3"),
        ({"msg": "x", "temperature": "abc"}, 'temperature: must be a number, got "abc"'),
        ({"msg": "x", "temperature": ""}, 'temperature: must be a number, got ""'),
        ({"msg": "x", "temperature": "nan"}, 'temperature: must be >= 0, got "nan"'),
        ({"msg": "x", "temperature": "1e999"}, 'temperature: number out of range, got "1e999"'),
        ({"msg": "x", "temperature": "9"}, 'temperature: must be <= 2, got "9"'),
        ({"msg": "x", "temperature": -1}, "temperature: must be >= 0, got -1.0"),
        ({"msg": "x", "temperature": True}, "temperature: must be a number or a string, got true"),
        ({"msg": "x", "temperature": None}, "temperature: must be a number or a string, got null"),
        ({"msg": "x", "temperature": 1, "history": []}, "history: unknown field"),
        ({"prompt": "x", "temperature": 1}, "prompt: unknown field"),
    ],
)
@pytest.mark.parametrize("parse", [glm4_web.parse_chat, glm4_web.parse_book])
def test_a_bad_field_is_refused_by_name_and_rule(fields, message, parse):
    with pytest.raises(InvalidRequest) as refusal:
        parse(body(**fields), glm4_web.GatewayBody, LIMITS)
    assert str(refusal.value) == message


def test_a_text_over_the_limit_is_refused_under_its_own_name():
    long_text = body(prompt="x" * 5001, temperature=1)
    with pytest.raises(InvalidRequest, match="prompt: must have at most 5000 characters, got 5001"):
        glm4_web.parse_chat(long_text, glm4_web.KernelBody, LIMITS)
    with pytest.raises(InvalidRequest, match="prompt: must have at most 4000 characters, got 5001"):
        glm4_web.parse_book(long_text, glm4_web.KernelBody, LIMITS)


def test_a_book_request_is_the_book_retrieval_task():
    task = glm4_web.parse_book(body(msg="函数", temperature="0.9"), glm4_web.GatewayBody, LIMITS)
    assert (task.name, task.input, task.sampling) == ("book_retrieval", Wish("函数"), GREEDY)


def test_the_answers_are_these_bytes():
    assert glm4_web.render_chat("你好 😀").decode() == '{"respond":"你好 😀"}'
    finished = Finished(answer=RowsAnswer(ROWS, 25))
    assert glm4_web.render_book(BOOKS_TEXT, finished).decode() == (
        '{"respond":' + json.dumps(BOOKS_TEXT, ensure_ascii=False) + ',"books":['
        '{"id":11,"title":"微积分之旅：从初级到高级"},{"id":14,"title":"微积分的世界：函数与变化"}]}'
    )


def test_books_without_rows_are_an_output_error():
    with pytest.raises(OutputInvalid):
        glm4_web.render_book("{}", Finished())
