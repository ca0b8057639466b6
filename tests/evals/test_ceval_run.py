"""Whole runs of `python -m evals.ceval`: with a server of the test, and with a gateway and a worker."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import requests

pytest.importorskip("matplotlib")

import LLMkernel
from bus.service import BusService
from evals.ceval.__main__ import main
from evals.ceval.options import create_parser, parse_options
from tests.evals.exam_servers import (
    PATIENCE,
    QUESTIONS,
    SUBJECTS,
    answer_key,
    exam_of,
    reply,
    websocket_exam,
)
from tests.gateway.test_with_the_bus import gateway_on
from tests.processes import wait_for
from workers.loop import WorkerLoop
from workers.scripted import ScriptedModel

ROOT = Path(__file__).parents[2]


def knows(key):
    """A server's answer that is right."""
    return lambda connection, frame: reply(frame, key[frame["question"]])


@pytest.fixture
def results(tmp_path):
    return tmp_path / "run.jsonl"


@pytest.fixture
def give(results):
    """Give the exam with these flags; returns the exit status."""

    def run(server, *flags):
        return main([str(QUESTIONS), "--results", str(results), "--server", server, *flags])

    return run


def accuracies(printed):
    """First cell of each row -> accuracy in percent."""
    return {row[0]: float(row[1]) for row in re.findall(r"^\| (\w[\w ]*) \|.* ([\d.]+)% \|$", printed, re.M)}


def asked_ids(exam):
    return [frame["id"] for frames in exam.connections for frame in frames]


def test_a_server_that_knows_everything_scores_100_percent(give, capsys):
    with websocket_exam(knows(answer_key())) as exam:
        assert give(exam.url) == 0
    printed = capsys.readouterr()
    assert accuracies(printed.out) == dict.fromkeys(
        ("All", "STEM", "Social Science", "Humanities", "Other", "Hard", *SUBJECTS), 100.0
    )
    assert "server: 12.50 tokens per second, first token after 0.250 s" in printed.out


def test_a_finished_run_started_again_asks_nothing_and_prints_the_same(give, capsys):
    with websocket_exam(knows(answer_key())) as exam:
        give(exam.url)
        first = capsys.readouterr().out
        assert give(exam.url) == 0
        assert len(exam.connections) == 1
    assert first.endswith(capsys.readouterr().out)


def test_more_subjects_can_be_asked_into_the_same_file(give):
    with websocket_exam(knows(answer_key())) as exam:
        assert give(exam.url, "--subjects", "civil_servant") == 0
        assert give(exam.url, "--subjects", "civil_servant", "high_school_physics") == 0
        assert [len(frames) for frames in exam.connections] == [5, 3]


def test_a_run_that_was_killed_goes_on_with_what_is_missing(give, results):
    key = answer_key()

    def answer(connection, frame):
        return reply(frame, key[frame["question"]]) if frame["id"] < 7 else ""

    with websocket_exam(answer) as exam:
        arguments = [str(QUESTIONS), "--results", str(results), "--server", exam.url]
        with subprocess.Popen([sys.executable, "-m", "evals.ceval", *arguments], cwd=ROOT) as process:
            is_there = partial(results_lines, results, 8)
            wait_for(is_there, PATIENCE, "seven answers")
            os.kill(process.pid, signal.SIGKILL)
    with results.open("ab") as file:
        file.write(b'{"subject":"college_economics","id":"0","prom')
    with websocket_exam(knows(key)) as exam:
        assert give(exam.url) == 0
        assert asked_ids(exam) == list(range(7, len(key)))
    assert results_lines(results, len(key) + 1)
    assert all(json.loads(line) for line in results.read_bytes().splitlines())


def results_lines(path, count):
    return path.exists() and path.read_bytes().count(b"\n") == count


def test_a_terminal_sees_a_bar_that_begins_where_the_run_before_ended(give, results):
    with websocket_exam(knows(answer_key())) as exam:
        give(exam.url, "--subjects", "civil_servant")
        arguments = [str(QUESTIONS), "--results", str(results), "--server", exam.url]
        seen = terminal_output([sys.executable, "-m", "evals.ceval", *arguments])
    assert "| 5/19 [" in seen
    assert "100%|" in seen
    assert "| 19/19 [" in seen


def terminal_output(command):
    """Run a command whose errors go to a terminal of 80 columns; return what was seen there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        subprocess.run(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs, timeout=PATIENCE, check=True
        )
        return os.read(ours, 65_536).decode()
    finally:
        os.close(theirs)
        os.close(ours)


def test_ctrl_c_leaves_what_was_answered(give, results, capsys):
    def answer(connection, frame):
        if frame["id"] < 3:
            return reply(frame, "A")
        if frame["id"] == 3:
            wait_for(partial(results_lines, results, 4), PATIENCE, "three answers")
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return ""

    with websocket_exam(answer) as exam:
        assert give(exam.url) == 130
    assert "stopped; the same command goes on from" in capsys.readouterr().err
    assert results_lines(results, 4)


def test_the_test_split_gives_a_submission_and_no_figures(tmp_path, results, capsys):
    for subject in ("civil_servant", "computer_network"):
        lines = (QUESTIONS / f"{subject}_val.csv").read_text(encoding="utf-8")
        (tmp_path / f"{subject}_test.csv").write_text(lines, encoding="utf-8")
    submission = tmp_path / "submission.json"
    arguments = [str(tmp_path), "--results", str(results), "--split", "test", "--submission", str(submission)]
    with websocket_exam(knows(answer_key())) as exam:
        assert main([*arguments, "--server", exam.url]) == 0
    assert json.loads(submission.read_text(encoding="utf-8")) == {
        "computer_network": {"0": "C", "1": "B", "2": "A", "3": "D"},
        "civil_servant": {"0": "B", "1": "A", "2": "C", "3": "D", "4": "B"},
    }
    assert "accuracy" not in capsys.readouterr().out


def test_free_answers_are_read_as_was_said(give, capsys):
    with websocket_exam(lambda _, frame: reply(frame, "选A，不选B。")) as exam:
        assert give(exam.url, "--free") == 0
        printed = capsys.readouterr()
        assert "answers without a letter where one is looked for: 19\n" in printed.err
        assert accuracies(printed.out)["All"] == 0.0
        assert give(exam.url, "--free", "--letter", "first") == 0
        assert accuracies(capsys.readouterr().out)["All"] == 27.3
        assert len(asked_ids(exam)) == 19


def test_a_refused_question_is_told_counted_as_wrong_and_asked_again_next_time(give, capsys):
    key = answer_key()

    def refuse(connection, frame):
        if frame["id"]:
            return reply(frame, key[frame["question"]])
        return json.dumps({"id": 0, "error": {"code": "prompt_too_long", "message": "9 of 8 tokens"}})

    with websocket_exam(refuse) as exam:
        assert give(exam.url) == 1
    printed = capsys.readouterr()
    assert "questions refused: 1; the first, computer_network 0: prompt_too_long: 9 of 8" in printed.err
    assert accuracies(printed.out)["computer_network"] == 75.0
    with websocket_exam(knows(key)) as exam:
        assert give(exam.url) == 0
        assert asked_ids(exam) == [0]


def test_bad_questions_end_the_run_in_one_line(tmp_path, capsys):
    path = tmp_path / "law_val.csv"
    path.write_text("id,question,A,B,C,D,answer\n0,q,a,b,c,d,Z\n", encoding="utf-8")
    assert main([str(tmp_path), "--results", str(tmp_path / "run.jsonl")]) == 1
    assert capsys.readouterr().err == (f"ceval: {path}:2: answer must be one of A, B, C and D, got 'Z'\n")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--server", "localhost:8765"], "--server must begin with ws://"),
        (["--model", "glm"], "--model is for HTTP"),
        (["--max-tokens", "5"], "--max-tokens is for --free"),
        (["--free", "--max-tokens", "0"], "--max-tokens must be at least 1, got 0"),
        (["--at-once", "0"], "--at-once must be at least 1, got 0"),
        (["--patience", "nan"], "--patience must be at least 1, got nan"),
        (["--split", "test", "--plot", "plot.svg"], "--plot needs answers"),
        (["--plot", "plot.txt"], "--plot must end in .svg, .png or .pdf"),
        (["--shots", "3"], "invalid choice"),
    ],
)
def test_flags_that_cannot_be_kept_are_refused(capsys, flags, words):
    with pytest.raises(SystemExit) as caught:
        parse_options(["folder", "--results", "run.jsonl", *flags])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_every_flag_stands_in_the_docs():
    page = (ROOT / "docs" / "evals.md").read_text(encoding="utf-8")
    flags = re.findall(r"--[a-z-]+", create_parser().format_help())
    assert {flag for flag in flags if f"| `{flag}" not in page} == {"--help"}


@contextmanager
def served(folder, script):
    """A gateway and a worker whose model says what the script makes of a prompt; yields HOST:PORT."""
    endpoint = f"ipc://{folder}/gateway.ipc"
    model = ScriptedModel(lambda messages: script(messages[-1].content))
    perform = partial(LLMkernel.perform, model=model, templates={}, database=None)
    with gateway_on([endpoint]) as port:
        loop = WorkerLoop(BusService([endpoint]), model.card, ["chat"], perform, capacity=8)
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            url = f"http://127.0.0.1:{port}/readyz"
            wait_for(lambda: requests.get(url, timeout=PATIENCE).status_code == 200, PATIENCE, "a worker")
            yield f"127.0.0.1:{port}"
        finally:
            loop.stop(0.0)
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize("flags", [[], ["--free"]], ids=["predicted", "free"])
@pytest.mark.parametrize("shots", [0, 5])
def test_through_a_gateway_who_knows_the_answers_scores_100_percent(
    tmp_path, give, capsys, scheme, flags, shots
):
    with served(tmp_path, answer_key(shots).__getitem__) as address:
        assert give(f"{scheme}://{address}", "--shots", str(shots), *flags) == 0
    figures = accuracies(capsys.readouterr().out)
    assert set(figures.values()) == {100.0}
    assert len(figures) == 6 + len(SUBJECTS)


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_through_a_gateway_always_a_scores_what_the_answer_key_says(tmp_path, give, capsys, scheme):
    files = ["--plot", str(tmp_path / "plot.svg"), "--submission", str(tmp_path / "submission.json")]
    with served(tmp_path, lambda prompt: "A") as address:
        assert give(f"{scheme}://{address}", *files) == 0
    figures = accuracies(capsys.readouterr().out)
    for subject in SUBJECTS:
        answers = [one.question.answer for one in exam_of(subjects=[subject])]
        assert figures[subject] == pytest.approx(100 * answers.count("A") / len(answers), abs=0.05)
    assert (figures["All"], figures["STEM"], figures["Hard"]) == (27.3, 29.2, 33.3)
    submission = json.loads((tmp_path / "submission.json").read_text(encoding="utf-8"))
    assert {letter for answers in submission.values() for letter in answers.values()} == {"A"}
    assert "civil servant" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
