"""testpost.py against a small server that answers well, and against each way to answer badly."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import testpost
from tests.hub.lectern import BAD_REQUEST, BOOKS, FINISHED, FOUND, SmallLectern

ROOT = Path(__file__).resolve().parent.parent
TOKEN = ("token", {"text": "好"})


@pytest.fixture
def lectern():
    with SmallLectern() as running:
        yield running


def run(lectern, *arguments):
    return testpost.main(["--url", lectern.url, "--timeout", "20", *arguments])


def assert_only_failed(capsys, check):
    """Exactly that check failed."""
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"FAILED: {check}", out
    assert out.count("FAILED after") == 1


def test_a_good_server_passes_and_its_answers_are_shown(lectern, capsys):
    assert run(lectern) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "all ok"
    assert "你好，我是演示模型。" in out
    assert "你好😀\nfinished" in out
    assert "微积分之旅：从初级到高级" in out
    assert "first token 0.50 s" in out
    assert 'POST /tasks/book_retrieval {"wish": "帮我找找有关函数求导的书"}' in out
    assert out.count("ok in ") == 5


def test_nothing_found_is_a_good_answer(lectern, capsys):
    lectern.spoil("/tasks/book_retrieval", answer={}, rows=[], text="{}")
    lectern.spoil("/book", respond="{}", books=[])
    assert run(lectern) == 0, capsys.readouterr().out


def test_it_waits_for_a_worker_and_says_so_once(lectern, capsys):
    lectern.looks_until_ready = 2
    assert run(lectern) == 0
    out = capsys.readouterr().out
    assert out.count("Waiting for") == 1
    assert "503" in out
    assert "no_worker" in out


def test_the_key_goes_with_every_request(lectern):
    assert run(lectern, "--key", "secret") == 0
    assert lectern.keys == {"Bearer secret"}


def test_tokens_are_shown_while_they_arrive(lectern):
    lectern.may_go_on.clear()
    shown = ""
    program = [sys.executable, "testpost.py", "--url", lectern.url]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            while not shown.endswith('"stream": true}\n你'):  # the first token, while the second is held back
                character = running.stdout.read(1)
                assert character, shown
                shown += character
            assert not lectern.may_go_on.is_set()
            lectern.may_go_on.set()
            rest, _ = running.communicate(timeout=30)
        finally:
            running.kill()
    assert rest.startswith("好😀\n")
    assert running.returncode == 0


BAD_ANSWERS = {
    "chat without text": ("check_chat", "/chat", (200, {"respond": ""})),
    "chat of another type": ("check_chat", "/chat", (200, {"respond": 1})),
    "chat down": ("check_chat", "/chat", (503, {"error": {"code": "no_worker"}})),
    "chat as HTML": ("check_chat", "/chat", (200, b"<html>")),
    "chat as a list of JSON": ("check_chat", "/chat", (200, b"[]")),
    "stream failed": ("check_streamed_chat", "/tasks/chat", (200, [TOKEN, ("failed", BAD_REQUEST)])),
    "stream without an end": ("check_streamed_chat", "/tasks/chat", (200, [TOKEN])),
    "stream without tokens": ("check_streamed_chat", "/tasks/chat", (200, [FINISHED])),
    "stream goes on": ("check_streamed_chat", "/tasks/chat", (200, [TOKEN, FINISHED, TOKEN])),
    "stream ends twice": ("check_streamed_chat", "/tasks/chat", (200, [TOKEN, FINISHED, FINISHED])),
    "half characters": (
        "check_streamed_chat",
        "/tasks/chat",
        (200, [("token", {"text": "\ufffd"}), FINISHED]),
    ),
    "stream refused": ("check_streamed_chat", "/tasks/chat", (503, BAD_REQUEST)),
    "stream not JSON": ("check_streamed_chat", "/tasks/chat", (200, b"event: token\ndata: {\n\n")),
    "not JSON": ("check_bad_request", "/chat without msg", (400, b"<html>")),
    "bad request accepted": ("check_bad_request", "/chat without msg", (200, {"respond": "x"})),
    "bad request breaks": ("check_bad_request", "/chat without msg", (500, BAD_REQUEST)),
    "error as text": ("check_bad_request", "/chat without msg", (400, {"error": "wrong"})),
    "error without retryable": (
        "check_bad_request",
        "/chat without msg",
        (400, {"error": {"code": "invalid_request", "message": "wrong"}}),
    ),
}


@pytest.mark.parametrize(("check", "route", "answer"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_wrong_answer_fails_its_check_and_no_other(lectern, capsys, check, route, answer):
    lectern.answers[route] = answer
    assert run(lectern) == 1
    assert_only_failed(capsys, check)


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": {"1": "凭空的书", "2": FOUND["2"]}},
        {"answer": {"1": FOUND["1"]}},
        {"answer": [FOUND["1"]]},
        {"rows": [{"key": 11, "title": FOUND["1"]}]},
        {"rows": [{"title": title} for title in FOUND.values()]},
        {"rows": ["微积分"]},
        {"rows": None},
        {"considered_rows": 1},
        {"considered_rows": "25"},
        {"text": "{}"},
        {"text": "```json"},
        {"timings": {}},
    ],
    ids=str,
)
def test_a_wrong_book_retrieval_fails_its_check(lectern, capsys, fields):
    lectern.spoil("/tasks/book_retrieval", **fields)
    assert run(lectern) == 1
    assert_only_failed(capsys, "check_book_retrieval")


@pytest.mark.parametrize(
    "fields",
    [
        {"respond": "```json {} ```"},
        {"respond": '{"1": "凭空的书", "2": "凭空的书"}'},
        {"respond": FOUND},
        {"books": []},
        {"books": None},
        {"books": BOOKS["books"] + [{"id": 13, "title": "一本没选的书"}]},
    ],
    ids=str,
)
def test_a_wrong_answer_of_the_old_form_fails_its_check(lectern, capsys, fields):
    lectern.spoil("/book", **fields)
    assert run(lectern) == 1
    assert_only_failed(capsys, "check_old_book_route")


def test_a_server_that_never_gets_ready_is_told_in_one_line(lectern, capsys):
    lectern.looks_until_ready = 10**6
    assert testpost.main(["--url", lectern.url, "--timeout", "0.3"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "not ready after 0.3 seconds" in line
    assert "no_worker" in line


def test_a_server_that_is_not_there_is_told_in_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        ended = run_program("--url", url, "--timeout", "0.3")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"testpost.py: {url} is not ready")
    assert "nothing answers there" in line


def test_a_url_that_is_none_is_told_in_one_line():
    ended = run_program("--url", "localhost:8080")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("testpost.py: ")


def test_help_tells_a_stranger_what_it_does():
    ended = run_program("--help")
    assert ended.returncode == 0
    assert "Smoke test" in ended.stdout
    assert testpost.DEFAULT_URL in ended.stdout


def run_program(*arguments):
    return subprocess.run(
        [sys.executable, "testpost.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
