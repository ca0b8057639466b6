import asyncio

import pytest

from benchmarks.chat_client import (
    ChatRefused,
    ChunkedBody,
    ServerSentEvents,
    ask,
    stream_at_once,
    stream_chat,
)
from tests.benchmarks.stub_server import DONE, event, saying, serving

ENDING = event(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}])
USAGE = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 5})

#: Seconds for an answer of a stub.
SECONDS = 10


def streamed(url, **body):
    return asyncio.run(stream_chat(url, body, SECONDS))


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_stream_is_read_to_its_end_with_a_time_for_each_piece_of_text(is_chunked):
    opening = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
    pieces = [opening, saying("Hal"), saying("lo 世界"), ENDING, USAGE, DONE]
    with serving(lambda body: (200, pieces), is_chunked=is_chunked) as server:
        record = streamed(server.url, model="m")
    assert server.asked == [("/v1/chat/completions", {"model": "m"})]
    assert (record.text, record.finish_reason, record.tokens) == ("Hallo 世界", "length", 5)
    assert len(record.piece_times) == 2
    assert record.asked_at < record.piece_times[0] <= record.piece_times[1] <= record.ended_at
    assert len(record.gaps_seconds) == 1
    assert record.first_token_seconds == record.piece_times[0] - record.asked_at


def test_without_usage_pieces_are_counted():
    with serving(lambda body: (200, [saying("a"), saying("b"), saying("c"), DONE])) as server:
        assert streamed(server.url).tokens == 3


def test_an_answer_without_text_shows_at_its_end():
    with serving(lambda body: (200, [ENDING, USAGE, DONE])) as server:
        record = streamed(server.url)
    assert record.first_token_seconds == record.ended_at - record.asked_at
    assert record.gaps_seconds == []


def test_a_refusal_is_told_with_its_words():
    with serving(lambda body: (503, [b"no worker"])) as server, pytest.raises(ChatRefused, match="no worker"):
        streamed(server.url)


def test_a_failure_in_the_middle_of_a_stream_is_no_answer():
    broken = event(error={"message": "lost"})
    with (
        serving(lambda body: (200, [saying("a"), broken])) as server,
        pytest.raises(ChatRefused, match="lost"),
    ):
        streamed(server.url)


def test_a_server_that_hangs_up_early_is_found_out():
    class HangsUp(list):
        def __iter__(self):
            yield saying("a")
            raise ConnectionAbortedError

    with serving(lambda body: (200, HangsUp())) as server:
        server.handle_error = lambda *words: None
        with pytest.raises(ConnectionError, match="hung up"):
            streamed(server.url)


def test_streams_run_side_by_side_and_come_back_in_their_order():
    with serving(lambda body: (200, [saying(body["name"]), DONE])) as server:
        bodies = [{"name": str(number)} for number in range(5)]
        records = asyncio.run(stream_at_once(server.url, bodies, SECONDS))
    assert [record.text for record in records] == ["0", "1", "2", "3", "4"]


def test_a_whole_answer_is_json():
    with serving(lambda body: (200, [b'{"rows": ', b"[1]}"])) as server:
        assert asyncio.run(ask(server.url, "/tasks/book_retrieval", {"wish": "x"}, SECONDS)) == {"rows": [1]}
    assert server.asked == [("/tasks/book_retrieval", {"wish": "x"})]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_chunks_and_events_may_be_cut_anywhere(size):
    content = saying("中文") + b": a comment\n\n" + DONE
    wire = b"5\r\n" + content[:5] + b"\r\n" + b"%X;x=y\r\n%b\r\n0\r\n\r\n" % (len(content) - 5, content[5:])
    body, events = ChunkedBody(), ServerSentEvents()
    parts = [body.feed(wire[place : place + size]) for place in range(0, len(wire), size)]
    assert b"".join(parts) == content
    assert body.is_finished
    assert len([data for part in parts for data in events.feed(part)]) == 2
