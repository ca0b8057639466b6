"""A gateway whose worker asks another server, over real processes."""

import json

import psutil
import pytest
import requests

from gateway import Limits
from records import embedded
from tests.end_to_end.running import ANSWER_SECONDS, START_SECONDS, chat_body, text_of
from tests.processes import wait_for
from tests.workers.upstream.servers import YuanServer, lectern_over
from workers.scripted import ScriptedModel

#: Seconds in which an upstream that is back must have been found: its circuit pauses for some seconds.
HEAL_SECONDS = 30.0

KEY = "upstream-secret-key"

TITLE = "微积分之旅：从初级到高级"


def script(messages):
    """Choose a book if there are books to choose from; get it wrong the first time."""
    question = messages[-1].content
    if "That is wrong" in question:
        return json.dumps({"1": TITLE}, ensure_ascii=False)
    return '{"1": "a book of its own"}' if "书目" in question else "the answer from afar"


@pytest.fixture
def upstream():
    """A model on another server: somebody else's Lectern."""
    model = ScriptedModel(script, name="far/away", pause_seconds=0.01)
    with lectern_over(model, limits=Limits(api_keys=(KEY,))) as (url, bus):
        yield url, bus


@pytest.fixture
def server(upstream, serve, folder):
    url, _ = upstream
    embedded.ensure(folder / "books.db")
    flags = ("--upstream", f"openai:{url}/v1", "--database", f"sqlite:///{folder}/books.db")
    return serve(*flags, environ={"LECTERN_UPSTREAM_API_KEY": KEY}).wait_ready()


def post(server, path, body, method="POST"):
    return requests.request(method, server.url + path, json=body, timeout=ANSWER_SECONDS)


def test_every_protocol_reaches_the_model_of_another_server(server):
    assert server.chat().json()["text"] == "the answer from afar"
    assert text_of(server.stream()) == "the answer from afar"
    assert server.get("/v1/models").json()["data"][0]["id"] == "far/away"
    asked = chat_body(model="far/away", n=2, logprobs=True)
    choices = post(server, "/v1/chat/completions", asked).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["the answer from afar"] * 2
    assert choices[0]["logprobs"]["content"][0]["token"] == "the"
    event = post(server, "/sse/subscribe", {"messages": [{"question": "hi", "answer": ""}]}).text
    assert json.loads(event.removeprefix("data: "))["resData"]["message"] == "the answer from afar"
    output = post(server, "/yuan", {"ques_list": [{"ques": "a"}, {"ques": "b"}]}, "PUT").json()["resData"]
    assert [one["ans"] for one in output["output"]] == ["the answer from afar"] * 2


def test_a_template_task_answers_with_rows_and_no_others(server, upstream):
    found = post(server, "/tasks/book_retrieval", {"wish": "函数求导"}).json()
    assert found["answer"] == {"1": TITLE}
    assert [row["title"] for row in found["rows"]] == [TITLE]
    _, bus = upstream
    assert len(bus.tasks) == 2  # the first answer named a book that is none


def test_what_the_other_server_cannot_do_is_refused_by_name(server):
    messages = [{"role": "user", "content": "hi"}]
    refused = server.post("chat", {"messages": messages, "form": {"type": "regex", "pattern": "("}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "cannot_do")
    too_long = server.chat(messages=[{"role": "user", "content": "word " * 50_000}])
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "prompt_too_long")


def test_a_client_that_leaves_frees_the_other_server_too(serve):
    with lectern_over(ScriptedModel("on and on " * 2000, pause_seconds=0.02)) as (url, bus):
        server = serve("--upstream", f"openai:{url}").wait_ready()
        response = server.post("chat", chat_body(stream=True), stream=True)
        next(response.iter_lines())
        assert bus.active == 1
        response.close()
        wait_for(lambda: bus.active == 0, ANSWER_SECONDS, "the other server's end of the task")


def test_the_key_stays_secret(server):
    assert server.chat().status_code == 200
    (worker,) = server.workers
    assert KEY in psutil.Process(worker).environ().values()
    for process in server.processes():
        assert KEY not in " ".join(psutil.Process(process).cmdline())
    assert KEY not in psutil.Process(server.gateway).environ().values()
    assert KEY not in server.output


def test_a_dead_server_is_told_with_a_time_and_found_again(serve):
    with lectern_over(ScriptedModel("first")) as (url, _):
        server = serve("--upstream", f"far=openai:{url}").wait_ready()
        assert server.chat().json()["text"] == "first"
    for _ in range(3):
        dead = server.chat()
        assert (dead.status_code, dead.json()["error"]["code"]) == (503, "upstream_down")
        assert dead.json()["error"]["retryable"] is True
        assert int(dead.headers["Retry-After"]) >= 1
    assert "does not answer: requests to it fail at once" in server.output
    with lectern_over(ScriptedModel("second"), port=int(url.rpartition(":")[2])):
        wait_for(lambda: server.chat().status_code == 200, HEAL_SECONDS, "an answer")
        assert server.chat().json()["text"] == "second"


def test_a_server_that_is_not_there_yet_is_waited_for(serve):
    with lectern_over(ScriptedModel("late")) as (url, _):
        pass
    server = serve("--upstream", f"openai:{url}")
    for words in ("Waiting for the upstream", "Gateway listens"):
        wait_for(lambda words=words: words in server.output, START_SECONDS, words)
    early = server.chat()
    assert (early.status_code, early.json()["error"]["code"]) == (503, "no_worker")
    with lectern_over(ScriptedModel("late"), port=int(url.rpartition(":")[2])):
        assert server.wait_ready().chat().json()["text"] == "late"


def test_a_yuan_server_is_found_by_its_variable(serve):
    yuan = YuanServer(lambda prompt: f"You▂said<n>{prompt.removesuffix('<sep>')}<eod>")
    with yuan.running() as url:
        server = serve(environ={"YUAN_2_URL": f"{url}/yuan"}).wait_ready()
        assert server.chat().json()["text"] == "You said\nhello"
        assert server.get("/v1/models").json()["data"][0]["id"] == "yuan"
        refused = server.chat(min_p=0.5)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "cannot_do")
        assert refused.json()["error"]["message"].startswith("min_p: ")
