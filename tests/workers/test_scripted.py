import json

import pytest

from contract import ChatMessage, ChooseRows, Completion, PredictOption, PromptTooLong, Sampling
from workers.scripted import ScriptedModel

PROMPT = (ChatMessage("user", "hello there"),)


def run(model: ScriptedModel, constraint: ChooseRows | None = None, **sampling):
    """Return the text, the tokens and how it ended."""
    stream = model.generate(PROMPT, Sampling(**sampling), constraint)
    tokens = []
    while True:
        try:
            tokens.append(next(stream))
        except StopIteration as ended:
            return "".join(token.text for token in tokens), tokens, ended.value


@pytest.mark.parametrize(
    "script", ["the quick brown fox", "你好，世界", " a\n\n b ", "😀 ok 👍", "", "x" * 50]
)
def test_the_script_comes_out_whole(script):
    text, tokens, completion = run(ScriptedModel(script))
    assert text == script
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert isinstance(completion, Completion)
    assert (completion.reason, completion.usage.completion_tokens) == ("stop", len(tokens))


def test_an_emoji_is_split_over_tokens_and_prints_with_the_last():
    _, tokens, _ = run(ScriptedModel("😀"))
    assert [token.text for token in tokens] == ["", "😀"]


def test_a_script_may_answer_the_conversation():
    model = ScriptedModel(lambda messages: messages[-1].content.upper())
    assert run(model)[0] == "HELLO THERE"


def test_max_tokens_cuts_the_answer():
    text, tokens, completion = run(ScriptedModel("one two three"), max_tokens=2)
    assert (text, len(tokens), completion.reason) == ("one two", 2, "length")


def test_an_answer_of_exactly_max_tokens_is_whole():
    assert run(ScriptedModel("one two"), max_tokens=2)[2].reason == "stop"


def test_the_context_bounds_prompt_and_answer():
    prompt_tokens = run(ScriptedModel())[2].usage.prompt_tokens
    _, tokens, completion = run(ScriptedModel("a b c d e", context_tokens=prompt_tokens + 2))
    assert (len(tokens), completion.reason) == (2, "length")
    with pytest.raises(PromptTooLong):
        run(ScriptedModel("a", context_tokens=prompt_tokens))


def test_the_first_stop_string_ends_the_answer():
    text, _, completion = run(ScriptedModel("one two three"), stop=("three", "two"))
    assert (text, completion.reason) == ("one ", "stop")


def test_several_choices_say_the_same_one_token_each_in_turn():
    _, tokens, completion = run(ScriptedModel("one two"), choices=3, max_tokens=2)
    assert [(token.choice, token.index, token.text) for token in tokens] == [
        *((choice, 0, "one") for choice in range(3)),
        *((choice, 1, " two") for choice in range(3)),
    ]
    assert completion.reasons == ("stop",) * 3
    assert (completion.usage.completion_tokens, completion.usage.steps) == (6, 2)


@pytest.mark.parametrize("alternatives", [0, 1, 5])
def test_every_token_has_a_log_probability_if_asked_for(alternatives):
    text, tokens, _ = run(ScriptedModel("two 😀"), logprobs=alternatives)
    for token in tokens:
        (told,) = token.logprobs
        assert (told.id,) == token.ids
        assert len(told.top) == len({other.id for other in told.top}) == alternatives
        ranked = [other.logprob for other in told.top]
        assert ranked == sorted(ranked, reverse=True)
        assert told.logprob == max(ranked, default=told.logprob) < 0
    assert b"".join(token.logprobs[0].token for token in tokens).decode() == text
    assert run(ScriptedModel("two"))[1][0].logprobs == ()


def test_it_records_what_it_was_asked():
    model = ScriptedModel()
    run(model, temperature=0.0, seed=5)
    assert model.prompts == [PROMPT]
    assert model.samplings == [Sampling(temperature=0.0, seed=5)]


def test_it_counts_the_generators_that_were_closed_early():
    model = ScriptedModel()
    run(model)
    assert model.stopped_early == 0
    stream = model.generate(PROMPT, Sampling())
    next(stream)
    stream.close()
    assert model.stopped_early == 1


def test_it_pauses_before_each_token():
    completion = run(ScriptedModel("a b c", pause_seconds=0.01))[2]
    assert completion.timings.first_token_seconds >= 0.01
    assert completion.timings.total_seconds >= 0.03


VALUES = ("a", 'with "quotes"', "函数\n")


def test_under_a_constraint_it_chooses_the_first_value():
    assert json.loads(run(ScriptedModel(), ChooseRows(VALUES, 3))[0]) == {"1": "a"}
    assert run(ScriptedModel(), ChooseRows((), 3))[0] == "{}"


@pytest.mark.parametrize("picks", [VALUES, VALUES[1:], ()])
def test_under_a_constraint_it_chooses_what_it_was_told(picks):
    expected = {str(number): pick for number, pick in enumerate(picks, 1)}
    for told in (picks, lambda messages: picks):
        assert json.loads(run(ScriptedModel(picks=told), ChooseRows(VALUES, 3))[0]) == expected


@pytest.mark.parametrize(("picks", "at_most"), [(("b",), 3), (("a", "a"), 3), (VALUES, 2)])
def test_picks_that_break_the_constraint_are_the_tests_mistake(picks, at_most):
    with pytest.raises(ValueError, match="break the constraint"):
        run(ScriptedModel(picks=picks), ChooseRows(VALUES, at_most))


@pytest.mark.parametrize(
    ("begun", "rest"), [("one", " two three"), ("one ", "two three"), ("once", "one two three"), ("", None)]
)
def test_an_answer_that_has_begun_goes_on_with_the_rest_of_the_script(begun, rest):
    model = ScriptedModel("one two three")
    tokens = model.generate([*PROMPT, ChatMessage("assistant", begun)], Sampling())
    assert "".join(token.text for token in tokens) == ("one two three" if rest is None else rest)


def test_it_counts_the_tokens_that_its_prompts_have():
    model = ScriptedModel()
    conversation = (ChatMessage("system", "😀"), *PROMPT)
    assert model.count_tokens(PROMPT) == run(model)[2].usage.prompt_tokens
    assert model.count_tokens(conversation) == model.count_tokens(PROMPT) + 2
    assert model.split_tokens("one two") == ("one", " two")
    assert model.split_tokens("") == ()


@pytest.mark.parametrize(
    ("script", "text"),
    [("A", "A"), ("答案是C，不是D", "答案是C"), ("An ABC of D", "An ABC of D"), ("no", "A")],
)
def test_an_option_is_predicted_by_the_script_up_to_the_first_one_or_is_the_first(script, text):
    assert run(ScriptedModel(script), PredictOption(("A", "B", "C", "D")))[0] == text
