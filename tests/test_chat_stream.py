"""LLMkernel.chat_stream: any number of sessions on one model, as text."""

import threading

import pytest

from contract import ChatMessage, InvalidRequest, PromptTooLong, Sampling
from LLMkernel import chat_stream
from workers.models import create_model
from workers.placement import Placement
from workers.scripted import ScriptedModel

#: Seconds that sessions in threads may take: far above what they need.
DEADLINE_SECONDS = 60


def turn(role, content):
    return {"role": role, "content": content}


def echo(messages):
    return f"{len(messages)}: {messages[-1].content}"


def test_the_answer_comes_in_pieces():
    pieces = list(chat_stream(ScriptedModel("\n two words 😀"), "hello", []))
    assert len(pieces) > 2
    assert all(pieces)
    assert "".join(pieces) == "two words 😀"


def test_the_model_is_shown_the_history_and_then_the_input():
    model = ScriptedModel()
    history = [turn("system", "Be kind."), turn("user", "one"), turn("assistant", "two")]
    list(chat_stream(model, "three", history))
    assert model.prompts == [
        (
            ChatMessage("system", "Be kind."),
            ChatMessage("user", "one"),
            ChatMessage("assistant", "two"),
            ChatMessage("user", "three"),
        )
    ]
    assert len(history) == 3


def test_sessions_in_one_thread_take_turns_and_never_mix():
    model = ScriptedModel(echo)
    one = chat_stream(model, "one one one", [])
    other = chat_stream(model, "other other", [turn("user", "a"), turn("assistant", "b")])
    begun = [next(one), next(other), next(one), next(other)]
    assert "".join([*begun[0::2], *one]) == "1: one one one"
    assert "".join([*begun[1::2], *other]) == "3: other other"


def test_sessions_in_threads_share_a_loaded_model():
    model = create_model("models/demo", "demo", Placement(device="cpu", threads=1, capacity=4))
    greedy = Sampling(temperature=0)
    questions = ["你好", "微积分是什么？", "What is calculus?", "你是谁？"]
    alone = ["".join(chat_stream(model, question, [], greedy)) for question in questions]
    together = dict.fromkeys(questions, "")

    def talk(question):
        for piece in chat_stream(model, question, [], greedy):
            together[question] += piece

    threads = [threading.Thread(target=talk, args=(question,)) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    model.close()
    assert list(together.values()) == alone
    assert all(alone)


def test_the_oldest_turns_are_left_out_until_all_fits():
    model = ScriptedModel("yes", context_tokens=40)
    history = [turn(role, f"{role} {number}") for number in range(30) for role in ("user", "assistant")]
    assert "".join(chat_stream(model, "the question", history)) == "yes"
    (shown,) = model.prompts
    assert shown[-1] == ChatMessage("user", "the question")
    assert 1 < len(shown) < 30
    assert [message.content for message in shown[:-1]] == [
        one["content"] for one in history[1 - len(shown) :]
    ]
    assert shown[0].role == "user"


def test_a_question_that_alone_is_too_long_is_told_with_both_lengths():
    model = ScriptedModel(context_tokens=8)
    with pytest.raises(PromptTooLong, match=r"the prompt has \d+ tokens.* at most 7"):
        next(chat_stream(model, "word " * 20, [turn("user", "a"), turn("assistant", "b")]))


@pytest.mark.parametrize(
    ("question", "history", "words"),
    [
        ("hello", [turn("robot", "x")], r"Invalid enum value 'robot' - at `\$\[0\]\.role`"),
        ("hello", [{"role": "user"}], "missing required field `content`"),
        ("hello", [{**turn("user", "x"), "name": "y"}], "unknown field `name`"),
        ("hello", [turn("user", 1)], "Expected `str`"),
        ("hello", ["x"], "Expected `object`"),
        (None, [], "Expected `str`"),
    ],
)
def test_a_history_of_another_form_is_told(question, history, words):
    with pytest.raises(InvalidRequest, match=words):
        next(chat_stream(ScriptedModel(), question, history))


def test_several_choices_are_no_one_text():
    with pytest.raises(InvalidRequest, match="choices"):
        next(chat_stream(ScriptedModel(), "hello", [], Sampling(choices=2)))


def test_a_session_that_is_closed_stops_the_model():
    model = ScriptedModel("a b c d e f")
    session = chat_stream(model, "hello", [])
    next(session)
    session.close()
    assert model.stopped_early == 1
