"""The chat in a terminal as a person would start it, with the embedded model and with a slow script."""

import re
import signal
import subprocess
import sys

import pytest

from tests.end_to_end.running import ANSWER_SECONDS, END_SECONDS, ROOT
from tests.processes import kill

TURN = re.compile(r"\nQuestion: \nAnswer: (.+)\nFTL: \d+\.\d{3} s\nTPS: \d+\.\d{3} token/s\n")


class Chat:
    """LLMapis.py --chat with pipes at both ends."""

    def __init__(self, *flags):
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "LLMapis.py"), "--chat", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def read_until(self, words):
        """Return what is shown up to and with these words; the test's own time limit ends the wait."""
        shown = b""
        while not shown.endswith(words.encode()):
            byte = self.process.stdout.read(1)
            assert byte, f"ended after {shown.decode()!r}: {self.process.stderr.read().decode()}"
            shown += byte
        return shown.decode()

    def finish(self, lines="", seconds=ANSWER_SECONDS):
        """Type the rest, close the input, and return the exit status, what was shown, and the log."""
        shown, log = self.process.communicate(lines.encode(), timeout=seconds)
        return self.process.returncode, shown.decode(), log.decode()


@pytest.fixture
def chat():
    chats = []

    def start(*flags):
        chats.append(Chat(*flags))
        return chats[-1]

    yield start
    for one in chats:
        kill([one.process.pid])
        one.process.communicate(timeout=END_SECONDS)


def test_the_embedded_model_answers_through_a_pipe_until_exit(chat):
    status, shown, log = chat().finish("你好\n微积分是什么？\nexit\n你好\n")
    assert status == 0, log
    answers = TURN.findall(shown)
    assert len(answers) == 2
    assert TURN.sub("", shown) == "\nQuestion: "


def test_the_end_of_the_input_ends_the_session(chat):
    status, shown, log = chat("--model", "scripted:hello there").finish("hello\n")
    assert (status, TURN.findall(shown)) == (0, ["hello there"]), log
    assert shown.endswith("\nQuestion: \n")


def test_ctrl_c_stops_the_answer_and_keeps_the_session(chat):
    session = chat("--model", f"scripted:0.02:{'word ' * 2000}")
    session.type("tell me all")
    session.read_until("Answer: word word")
    session.process.send_signal(signal.SIGINT)
    rest = session.read_until("Question: ")
    assert "\nFTL: " in rest
    assert "\nTPS: " in rest
    assert rest.count("word") < 1000
    session.process.send_signal(signal.SIGINT)
    session.read_until("(exit, or Ctrl-D, ends the session)\n\nQuestion: ")
    status, _, log = session.finish("exit\n")
    assert status == 0
    assert "Traceback" not in log


def test_a_line_that_is_no_text_does_not_end_the_session(chat):
    session = chat("--model", "scripted:yes")
    session.process.stdin.write(b"\xff\xfe\n")
    status, shown, _ = session.finish("hello\n")
    assert (status, TURN.findall(shown)) == (0, ["yes", "yes"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--bmodel", "x.bmodel", "--token", "t", "--dev_id", "0"), "x.bmodel: there is no such file"),
        (("--model", "/nowhere"), "no such model"),
        (("--model", "a=x", "--model", "b=y"), "a worker holds one model"),
    ],
)
def test_what_cannot_start_is_told_in_one_line(chat, flags, words):
    status, shown, log = chat(*flags).finish()
    assert (status, shown) == (78, "")
    (line,) = log.splitlines()
    assert line.startswith("LLMapis: ")
    assert words in line
