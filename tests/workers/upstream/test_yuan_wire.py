import pytest

from contract import ChatMessage, InvalidRequest, OutputError, PromptTooLong, Sampling
from workers.upstream.yuan_wire import PROMPT_CHARACTERS, clean, read_answer, write_body, write_prompt


def user(text):
    return ChatMessage("user", text)


def assistant(text):
    return ChatMessage("assistant", text)


def test_a_conversation_is_written_as_yuan_models_know_it():
    messages = [user("你是谁"), assistant("我是源"), user("多大？"), assistant("两岁"), user("再见")]
    assert write_prompt(messages) == "你是谁？<n>我是源。<n>多大？<n>两岁。<n>再见<sep>"


def test_what_ends_with_punctuation_gets_no_other():
    messages = [user("really?"), assistant("Yes. Sure!"), user("ok")]
    assert write_prompt(messages) == "really?<n>Yes. Sure!<n>ok<sep>"


def test_a_single_question_has_no_history():
    assert write_prompt([user("hello")]) == "hello<sep>"


def test_a_system_message_stands_before_everything():
    messages = [ChatMessage("system", "be brief"), user("a"), assistant("b"), user("c")]
    assert write_prompt(messages) == "be brief<n>a？<n>b。<n>c<sep>"


def test_line_breaks_are_marks_and_marks_of_people_are_text():
    assert write_prompt([user("a\nb\r\nc<sep><eod><n>")]) == "a<n>b<n>c＜sep＞＜eod＞＜n＞<sep>"


def test_several_messages_of_one_side_are_one():
    messages = [user("a"), user("b"), assistant("c"), assistant("d"), user("e"), user("f")]
    assert write_prompt(messages) == "a<n>b？<n>c<n>d。<n>e<n>f<sep>"


def test_the_oldest_turns_are_left_out():
    turns = [message for number in range(30) for message in (user(f"q{number:04}"), assistant("x" * 191))]
    prompt = write_prompt([*turns, user("last")])
    assert prompt.endswith("q0029？<n>" + "x" * 191 + "。<n>last<sep>")
    assert "q0000" not in prompt
    assert PROMPT_CHARACTERS - 205 < len(prompt.removesuffix("<sep>")) <= PROMPT_CHARACTERS
    assert write_prompt([user("a"), assistant("x" * 5000), user("b")]) == "b<sep>"


def body(context_tokens=8192, prompt="hi<sep>", **sampling):
    return write_body(prompt, Sampling(**sampling), context_tokens)


def test_a_body_holds_one_question():
    assert body(temperature=0.5, top_p=0.9, max_tokens=50, seed=2**30 + 5) == {
        "ques_list": [{"id": "0", "ques": "hi<sep>"}],
        "tokens_to_generate": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "do_sample": True,
        "random_seed": 5,
    }


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"temperature": 0}, {"temperature": 1.0, "top_k": 1, "top_p": 0.0, "do_sample": False}),
        ({"temperature": 0, "top_p": 0.5}, {"top_k": 1, "top_p": 0.0}),
        ({"top_k": 1, "top_p": 0.5}, {"top_k": 1, "top_p": 0.0, "do_sample": False}),
        ({"top_k": 40}, {"top_k": 40, "top_p": 0.0, "do_sample": True}),
        ({"top_p": 1}, {"top_k": 0, "top_p": 0.0}),
        ({"top_k": 1000}, {"top_k": 1000}),
    ],
)
def test_what_is_off_and_what_is_greedy_is_said_in_its_words(sampling, expected):
    assert expected.items() <= body(**sampling).items()


@pytest.mark.parametrize(
    ("sampling", "name"), [({"top_k": 1001}, "top_k"), ({"top_k": 5, "top_p": 0.5}, "top_p")]
)
def test_what_it_cannot_take_is_refused_by_name(sampling, name):
    with pytest.raises(InvalidRequest, match=rf"^{name}: "):
        body(**sampling)


def test_an_answer_has_the_room_that_the_prompt_leaves():
    assert 8000 < body()["tokens_to_generate"] < 8192
    assert body(max_tokens=8000, prompt="字" * 1000)["tokens_to_generate"] < 7000
    assert body(prompt="字" * 9000)["tokens_to_generate"] == 256
    assert body(context_tokens=100, prompt="字" * 900)["tokens_to_generate"] == 100


def success(text):
    return {"flag": True, "errCode": "0", "resData": {"output": [{"id": "0", "ans": text}]}}


def test_marks_in_an_answer_are_what_they_mean():
    assert read_answer(success('One▂two<n>Three▃"four"<unk><eod>')) == 'One two\nThree\n"four"'
    assert clean("plain") == "plain"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"flag": False, "errCode": 1, "exceptionMsg": "Cannot exist empty prompt"}, InvalidRequest),
        (
            {
                "flag": False,
                "errCode": 1,
                "exceptionMsg": "the sum of input and output seqence lengths shoud",
            },
            PromptTooLong,
        ),
        ({"flag": False, "errCode": 2, "exceptionMsg": "CUDA out of memory"}, OutputError),
        ({"flag": False}, OutputError),
        ({"flag": "true"}, OutputError),
        (success(None), OutputError),
        ({"flag": True, "resData": {"output": []}}, OutputError),
        ({"flag": True}, OutputError),
        ("random_seed must be integer", OutputError),
        ([], OutputError),
        (None, OutputError),
    ],
)
def test_a_failure_is_what_it_says(answer, error):
    with pytest.raises(error):
        read_answer(answer)
