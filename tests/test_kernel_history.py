import pytest
from hypothesis import given
from hypothesis import strategies as st

import LLMkernel
from contract import GREEDY, Chat, ChatMessage, PromptTooLong, Sampling, Task, Trimmed
from workers.scripted import ScriptedModel


def long_chat(turns, question="q" * 40, begun=None, system=None):
    """A conversation whose every message has 10 tokens: words of 4 letters, without spaces."""
    messages = [ChatMessage("system", system)] if system else []
    for turn in range(turns):
        messages += ChatMessage("user", f"{turn:040}"), ChatMessage("assistant", "a" * 40)
    messages.append(ChatMessage("user", question))
    return tuple(messages if begun is None else [*messages, ChatMessage("assistant", begun)])


def run_chat(model, messages, *, sampling=GREEDY, **limits):
    task = Task("chat", Chat(messages, **limits), sampling)
    return list(LLMkernel.perform(task, model, templates={}, database=None))


def test_an_answer_that_has_begun_goes_on_and_keeps_its_space():
    messages = (ChatMessage("user", "hello"), ChatMessage("assistant", "two"))
    *tokens, _ = run_chat(ScriptedModel("two words"), messages)
    assert "".join(token.text for token in tokens) == " words"


def test_the_oldest_turns_are_left_out_until_the_rest_leaves_room_for_an_answer():
    model = ScriptedModel("x " * 500, context_tokens=200)
    first, *_, ending = run_chat(model, long_chat(20), drops_history=True)
    assert first == Trimmed(26)
    assert model.prompts == [long_chat(20)[26:]]  # 7 turns and the question: 150 of 200
    assert (ending.reason, ending.usage.completion_tokens) == ("length", 50)


@pytest.mark.parametrize(("total", "trimmed"), [(100, 34), (10_000, 26), (27, 40)])
def test_a_limit_of_all_tokens_bounds_prompt_and_answer_within_the_context(total, trimmed):
    model = ScriptedModel("x " * 500, context_tokens=200)
    messages = long_chat(20, question="q" * 40)
    first, *_, ending = run_chat(model, messages, drops_history=True, total_tokens=total)
    assert first == Trimmed(trimmed)
    usage = ending.usage
    assert usage.prompt_tokens + usage.completion_tokens == min(total, 200)


def test_what_fits_is_not_trimmed():
    model = ScriptedModel("x")
    events = run_chat(model, long_chat(2), drops_history=True, total_tokens=1000)
    assert not any(isinstance(event, Trimmed) for event in events)
    assert model.prompts == [long_chat(2)]


def test_the_shorter_of_two_limits_bounds_the_answer():
    model = ScriptedModel("x " * 500)
    for most, said in ((5, 5), (50, 20)):
        limits = {"total_tokens": 30, "sampling": Sampling(temperature=0, max_tokens=most)}
        assert run_chat(model, long_chat(0), **limits)[-1].usage.completion_tokens == said


@pytest.mark.parametrize("drops_history", [True, False])
def test_a_question_over_the_limit_is_refused_with_both_lengths(drops_history):
    with pytest.raises(PromptTooLong, match="has 10 tokens; with room for an answer, at most 9 fit"):
        run_chat(ScriptedModel(), long_chat(0), drops_history=drops_history, total_tokens=10)
    assert run_chat(ScriptedModel(), long_chat(0), total_tokens=11)


def count(messages):
    return sum(len(message.content) for message in messages)


def test_a_begun_answer_and_system_messages_stay():
    messages = long_chat(3, begun="yes", system="be kind")
    room = count(messages) - 80
    assert LLMkernel.trim(messages, count, room) == (messages[0], *messages[3:])
    assert LLMkernel.trim(messages, count, 0) == (messages[0], *messages[-2:])


@given(
    st.integers(0, 30),
    st.lists(st.integers(0, 9), min_size=30, max_size=30),
    st.integers(0, 200),
    st.booleans(),
)
def test_no_turn_is_left_out_that_would_have_fitted(turns, lengths, limit, is_begun):
    messages = [ChatMessage("user", "q" * length) for length in lengths[:turns]]
    messages = [part for question in messages for part in (question, ChatMessage("assistant", "a"))]
    messages += [ChatMessage("user", "q"), *[ChatMessage("assistant", "a")] * is_begun]
    kept = LLMkernel.trim(tuple(messages), count, limit)
    left_out = len(messages) - len(kept)
    assert tuple(messages[left_out:]) == kept
    assert left_out % 2 == 0
    assert kept[0].role == "user"
    assert count(kept) <= limit or len(kept) == 1 + is_begun
    assert left_out == 0 or count(messages[left_out - 2 :]) > limit
