from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import wire
from bus.errors import WireError
from contract import (
    Beat,
    Cancel,
    Chat,
    ChatMessage,
    Failed,
    Finished,
    FoundRow,
    Goodbye,
    Hello,
    Interrupt,
    ModelCard,
    Refused,
    Reply,
    RowsAnswer,
    Submit,
    Task,
    Token,
    Tokenize,
    TokensAnswer,
    Trimmed,
    Wish,
)

CARD = ModelCard("m", "f", 100)
TO_WORKER = [
    Submit(Task("chat", Chat((ChatMessage("user", "你好 😀"),)))),
    Submit(Task("book_retrieval", Wish("函数"), model="m")),
    Submit(Task("chat", Chat((ChatMessage("assistant", "…"),), None, True, 2048), caller="c")),
    Submit(Task("tokenize", Tokenize("你好"))),
    Cancel("t"),
    Interrupt("c"),
    Interrupt("c", "t"),
    Beat(2**62),
]
TO_GATEWAY = [
    Hello("w", CARD, ("chat",), 4, 1, ("t",), 3),
    Goodbye("w"),
    Refused("t"),
    Reply("t", Token(3, (1, 2), "ab")),
    Reply("t", Trimmed(4)),
    Reply("t", Finished(answer=TokensAnswer(("你", "好")))),
    Reply("t", Finished(answer=RowsAnswer((FoundRow(1, {"title": "x", "price": 1.5, "year": None}),), 25))),
    Reply("t", Failed("overloaded", "full", 503, True, 2.0)),
]


@pytest.mark.parametrize("envelope", TO_WORKER)
def test_a_worker_reads_what_a_gateway_wrote(envelope):
    assert wire.decode_for_worker(wire.encode(envelope)) == envelope


@pytest.mark.parametrize("envelope", TO_GATEWAY)
def test_a_gateway_reads_what_a_worker_wrote(envelope):
    assert wire.decode_for_gateway(wire.encode(envelope)) == envelope


@pytest.mark.parametrize("envelope", TO_GATEWAY)
def test_a_worker_is_never_told_what_only_gateways_hear(envelope):
    with pytest.raises(WireError):
        wire.decode_for_worker(wire.encode(envelope))


@pytest.mark.parametrize("envelope", TO_WORKER)
def test_a_gateway_is_never_told_what_only_workers_hear(envelope):
    with pytest.raises(WireError):
        wire.decode_for_gateway(wire.encode(envelope))


def test_another_version_is_not_read():
    message = bytes([wire.VERSION + 1]) + wire.encode(Cancel("t"))[1:]
    with pytest.raises(WireError, match="version"):
        wire.decode_for_worker(message)


def test_values_that_break_a_rule_are_not_read():
    message = wire.encode(Submit(Task("chat", Wish("x")))).replace(b"top_k\x00", b"top_k\xff")
    with pytest.raises(WireError, match="top_k"):
        wire.decode_for_worker(message)


@pytest.mark.parametrize("envelope", [Cancel("\ud800"), Reply("t", Token(2**70, (), ""))])
def test_what_msgpack_cannot_say_is_not_written(envelope):
    with pytest.raises(WireError):
        wire.encode(envelope)


def test_a_deep_message_is_unreadable_and_harmless():
    with pytest.raises(WireError):
        wire.decode_for_worker(bytes([wire.VERSION]) + b"\x81\xa1a" * 100_000 + b"\xc0")


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_wire_errors(noise):
    for decode in (wire.decode_for_worker, wire.decode_for_gateway):
        for message in (noise, bytes([wire.VERSION]) + noise):
            with suppress(WireError):
                decode(message)


@given(st.sampled_from(TO_WORKER + TO_GATEWAY), st.data())
def test_damaged_messages_raise_nothing_but_wire_errors(envelope, data):
    message = bytearray(wire.encode(envelope))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    del message[data.draw(st.integers(1, len(message))) :]
    for decode in (wire.decode_for_worker, wire.decode_for_gateway):
        with suppress(WireError):
            decode(bytes(message))
