import os
import signal
import time

import pytest

from tests.end_to_end.running import END_SECONDS, START_SECONDS, text_of
from tests.processes import is_running, wait_for, wait_until_gone

#: Half a second of words, each with a pause, so that something can happen between them.
SLOW = "scripted:0.1:" + "word " * 30

#: Seconds that a stop may take while nothing is under way.
IDLE_END_SECONDS = 10.0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_goes_on_when_its_worker_is_killed(serve, workers):
    server = serve("--model", SLOW, "--workers", str(workers)).wait_ready()
    wait_for(lambda: len(server.get("/workers").json()["workers"]) == workers, START_SECONDS, "all workers")
    streams = [server.stream() for _ in range(workers)]  # one for each
    seen = [[next(stream), next(stream)] for stream in streams]
    os.kill(server.workers[0], signal.SIGKILL)
    for events, stream in zip(seen, streams, strict=True):
        events += stream
        tokens = [data for name, data in events if name == "token"]
        name, ending = events[-1]
        assert (name, ending["usage"]["completion_tokens"]) == ("finished", len(tokens))
        assert [token["index"] for token in tokens] == list(range(len(tokens)))
        assert text_of(events) == "word " * 30
    assert "was killed by SIGKILL" in server.output
    assert "goes on elsewhere" in server.output


def test_a_gateway_process_that_is_killed_is_replaced(serve):
    server = serve().wait_ready()
    (process,) = server.gateway_processes
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: [process] != server.gateway_processes != [], START_SECONDS, "another process")
    server.wait_ready()
    assert server.chat().status_code == 200


def test_a_whole_gateway_that_is_killed_starts_again(serve):
    server = serve().wait_ready()
    gateway, others = server.gateway, server.gateway_processes
    os.kill(gateway, signal.SIGKILL)
    wait_until_gone([gateway, *others])
    wait_for(lambda: server.processes("--workers=0"), START_SECONDS, "another gateway")
    server.wait_ready()
    assert server.chat().status_code == 200


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGTERM, False), (signal.SIGINT, True)],
    ids=["SIGTERM", "Ctrl-C in the terminal"],
)
def test_a_stop_in_the_middle_of_a_stream_lets_it_end_and_leaves_nothing(serve, number, whole_group):
    server = serve("--model", SLOW).wait_ready()
    assert server.socket_files() == [f"{server.port}-0.ipc"]
    events = server.stream()
    seen = [next(events)]
    server.send(number, whole_group=whole_group)
    seen += events
    assert seen[-1][0] == "finished"
    assert text_of(seen).count("word") == 30
    assert server.wait() == 0
    assert server.socket_files() == []


def test_a_stop_is_quick_when_nothing_is_under_way(serve):
    server = serve().wait_ready()
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < IDLE_END_SECONDS


def test_nothing_outlives_a_supervisor_that_is_killed(serve):
    server = serve().wait_ready()
    family = server.processes()
    assert len(family) == 4
    server.send(signal.SIGKILL)
    wait_until_gone(family, END_SECONDS)
    assert server.socket_files() == []


def test_a_port_that_is_taken_is_told_in_one_line_before_anything_starts(serve, run):
    server = serve().wait_ready()
    second = run("serveapi.py", "--listen", f"127.0.0.1:{server.port}")
    assert second.wait() == 1
    (line,) = second.output.splitlines()
    assert f"127.0.0.1:{server.port} is in use" in line
    assert server.chat().status_code == 200


def test_a_broken_task_file_is_told_with_file_field_and_reason(serve, folder):
    (folder / "templates" / "tasks").mkdir(parents=True)
    (folder / "templates" / "tasks" / "films.toml").write_text('description = "x"\n[source]\nquery = 5\n')
    server = serve("--templates", "templates")
    assert server.wait() == 1
    assert "films.toml" in server.output
    assert "source" in server.output
    assert "giving up" in server.output


def test_a_model_that_is_not_there_is_told_and_ends_the_server(serve, folder):
    server = serve("--model", "no/such/model")
    assert server.wait() == 1
    assert f"  | LLMapis: no such model: {folder}/no/such/model" in server.output
    assert "giving up: it can never start" in server.output


def test_one_model_that_is_not_there_does_not_keep_the_other_from_serving(serve):
    server = serve("--model", "scripted:here", "--model", "no/such/model").wait_ready()
    assert server.chat().json()["text"] == "here"
    wait_for(lambda: "giving up" in server.output, START_SECONDS, "the report")
    assert is_running(server.pid)


@pytest.mark.parametrize("program", ["serveapi.py", "LLMapis.py"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--threads", "many"], "--threads on the command line must be a whole number"),
        (["--nonsense"], "--nonsense"),
        (["--bus-key-file", "/proc/keys.toml"], "keys"),
    ],
)
def test_a_setting_that_cannot_work_is_told_in_one_line(run, program, flags, words):
    shown = run(program, "--listen", "127.0.0.1:1", *flags)
    assert shown.wait() == os.EX_CONFIG
    (line,) = shown.output.splitlines()
    assert words in line
