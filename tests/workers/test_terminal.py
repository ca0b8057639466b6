"""A session in a terminal, driven by a script of lines and a model that says what it was told to."""

import itertools
from contextlib import closing

import pytest

from contract import ChatMessage, Finished, PromptTooLong, Sampling, Token, Trimmed
from workers.scripted import ScriptedModel
from workers.terminal import Terminal


def user(text):
    return ChatMessage("user", text)


def assistant(text):
    return ChatMessage("assistant", text)


def ticks(step=0.5):
    """A clock that goes on by half a second whenever somebody looks at it."""
    return itertools.count(step=step).__next__


class Session:
    """A person who types these lines, and what they see; a line may be an exception or a function."""

    def __init__(self, answer, *lines, clock=None):
        self._lines = iter(lines)
        self.shown = ""
        self.prompts = []
        self.terminal = Terminal(self._remembering(answer), self._read, self._write, clock or ticks())

    def run(self):
        self.terminal.run()
        return self.shown

    def _remembering(self, answer):
        def ask(messages):
            self.prompts.append(messages)
            return answer(messages)

        return ask

    def _read(self, prompt):
        self._write(prompt)
        line = next(self._lines, EOFError())
        line = line() if callable(line) else line
        if isinstance(line, BaseException):
            raise line
        return line

    def _write(self, text):
        assert text
        self.shown += text


def saying(*pieces):
    """An answer of these pieces, a token each."""

    def answer(messages):
        yield Token(0, (), "")  # still at work
        for index, piece in enumerate(pieces):
            yield Token(index, (index,), piece)
        yield Finished()

    return answer


def scripted(model):
    def answer(messages):
        yield from model.generate(messages, Sampling())
        yield Finished()

    return answer


def test_a_question_is_answered_with_its_pace_until_exit():
    session = Session(saying("你", "", "好！"), "你好", "exit")
    assert session.run() == "\nQuestion: \nAnswer: 你好！\nFTL: 0.500 s\nTPS: 2.000 token/s\n\nQuestion: "


def test_an_answer_is_shown_while_it_is_made():
    seen = []

    def answer(messages):
        yield Token(0, (1,), "one")
        seen.append(session.shown)
        yield Token(1, (2,), " two")

    session = Session(answer, "count")
    session.run()
    assert seen[0].endswith("\nAnswer: one")


def test_the_history_holds_whole_answers():
    model = ScriptedModel(lambda messages: f"answer {len(messages)} in several tokens")
    Session(scripted(model), "first", "second", "third", "exit").run()
    assert model.prompts[-1] == (
        user("first"),
        assistant("answer 1 in several tokens"),
        user("second"),
        assistant("answer 3 in several tokens"),
        user("third"),
    )


def test_two_sessions_on_one_model_know_nothing_of_each_other():
    model = ScriptedModel("yes")
    one = Session(scripted(model), "one", "more of one", "exit")
    Session(scripted(model), "other", "exit").run()
    one.run()
    assert one.prompts[-1] == (user("one"), assistant("yes"), user("more of one"))


@pytest.mark.parametrize("end", ["exit", "  exit ", EOFError()])
def test_exit_and_the_end_of_the_input_end_the_session(end):
    session = Session(saying("yes"), "one", end, "two")
    session.run()
    assert len(session.prompts) == 1


def test_an_empty_line_is_no_question():
    session = Session(saying("yes"), "", "   ", "exit")
    assert session.run() == 3 * "\nQuestion: "
    assert session.prompts == []


def test_ctrl_c_stops_the_answer_and_keeps_the_session_and_what_was_said():
    model = ScriptedModel("one two three four")

    def answer(messages):
        with closing(scripted(model)(messages)) as events:
            for event in events:
                yield event
                if len(session.prompts) == 1 and session.shown.endswith("one two"):
                    session.terminal.interrupt()
                    yield Token(0, (), "")

    session = Session(answer, "count", "go on", "exit")
    shown = session.run()
    assert "Answer: one two\nFTL: " in shown
    assert model.stopped_early == 1
    assert session.prompts[1] == (user("count"), assistant("one two"), user("go on"))
    assert "Answer: one two three four\n" in shown


def test_ctrl_c_before_the_first_word_forgets_the_question():
    def answer(messages):
        if messages[-1].content == "wait":
            session.terminal.interrupt()
        yield Token(0, (), "")
        yield Token(0, (1,), "yes")

    session = Session(answer, "wait", "now", "exit")
    assert "\nAnswer: \nFTL: 0.000 s\nTPS: 0.000 token/s\n" in session.run()
    assert session.prompts == [(user("wait"),), (user("now"),)]


def test_ctrl_c_at_a_question_tells_how_to_end():
    def press():
        session.terminal.interrupt()

    session = Session(saying("yes"), press, "one", "exit")
    assert session.run().startswith(
        "\nQuestion: \n(exit, or Ctrl-D, ends the session)\n\nQuestion: \nAnswer: yes"
    )


def test_a_question_that_fails_is_told_and_forgotten():
    def answer(messages):
        yield Token(0, (), "")
        if messages[-1].content == "long":
            raise PromptTooLong("the prompt has 9 tokens, the context 8")
        yield Token(0, (1,), "yes")

    session = Session(answer, "one", "long", "two", "exit")
    assert "Answer: \nError: the prompt has 9 tokens, the context 8\n\nQuestion: " in session.run()
    assert session.prompts[-1] == (user("one"), assistant("yes"), user("two"))


def test_messages_that_no_longer_fit_are_forgotten():
    def answer(messages):
        if len(messages) > 3:
            yield Trimmed(2)
        yield Token(0, (1,), "yes")

    session = Session(answer, "one", "two", "three", "four", "exit")
    session.run()
    questions = [[message.content for message in prompt[::2]] for prompt in session.prompts]
    assert questions == [["one"], ["one", "two"], ["one", "two", "three"], ["two", "three", "four"]]


def test_tokens_that_come_at_once_count_one_by_one():
    def answer(messages):
        yield Token(0, (1, 2, 3), "abc")
        yield Token(3, (4, 5, 6), "def")

    assert "FTL: 0.500 s\nTPS: 6.000 token/s" in Session(answer, "x").run()
