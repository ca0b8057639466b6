from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import OutputError
from workers.upstream import events
from workers.upstream.events import EventReader

STREAM = (
    ": ping\r\n\r\ndata: {}\n\nevent: token\ndata:a\ndata: 你好\n\n"
    "id: 3\n\r\ndata\n\ndata: [DONE]\r\n\r\ndata: cut"
).encode()
DATA = [b"{}", "a\n你好".encode(), b"[DONE]"]


def read(pieces):
    reader = EventReader()
    return [data for piece in pieces for data in reader.feed(piece)]


def test_events_are_told_from_comments_and_other_fields():
    assert read([STREAM]) == DATA


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_it_does_not_matter_where_the_bytes_are_cut(places):
    ends = [0, *sorted(places), len(STREAM)]
    assert read([STREAM[start:end] for start, end in pairwise(ends)]) == DATA


def test_lines_may_end_with_a_carriage_return_alone():
    assert read([b"data: a\r\rdata: b\r\r", b"data"]) == [b"a", b"b"]


def test_an_endless_event_is_refused(monkeypatch):
    monkeypatch.setattr(events, "EVENT_BYTES", 100)
    with pytest.raises(OutputError, match="more than 100 bytes"):
        read([b"data: " + b"x" * 60] * 2)
    with pytest.raises(OutputError, match="more than 100 bytes"):
        read([b"data: 1234567890\n"] * 20)
