"""What both ends of the bus agree on: envelopes as bytes, and the rhythm of the heart. Pure."""

from typing import TypeVar

import msgspec

from bus.errors import WireError
from contract import Envelope, ToGateway, ToWorker

Kind = TypeVar("Kind")

#: The first byte of every message; goes up when an older program could misread a newer one.
VERSION = 1

#: Seconds between two signs of life, in both directions: one message per worker and second costs nothing.
HEARTBEAT_SECONDS = 1.0

#: Seconds without a sign of life after which the other end counts as dead: five missed beats and a bit,
#: so that a garbage collection or a busy machine does not kill a healthy worker.
SILENCE_SECONDS = 6.0

#: Bytes; a longer message is not even received. The gateway's largest body is far below.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

#: Bytes of an unreadable message that are shown in the log.
_SHOWN_BYTES = 40

_PREFIX = bytes([VERSION])
_encoder = msgspec.msgpack.Encoder()
_worker_decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_gateway_decoder: msgspec.msgpack.Decoder[ToGateway] = msgspec.msgpack.Decoder(ToGateway)


def encode(envelope: Envelope) -> bytes:
    """Return the version byte and the envelope in msgpack.

    Raises WireError for what msgpack cannot say: integers over 64 bit, half a surrogate pair.
    """
    try:
        return _PREFIX + _encoder.encode(envelope)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"cannot write a {type(envelope).__name__}: {error}") from error


def decode_for_worker(message: bytes) -> ToWorker:
    """Read what a gateway says. Raises WireError, never anything else."""
    return _decode(_worker_decoder, message)


def decode_for_gateway(message: bytes) -> ToGateway:
    """Read what a worker says. Raises WireError, never anything else."""
    return _decode(_gateway_decoder, message)


def _decode(decoder: msgspec.msgpack.Decoder[Kind], message: bytes) -> Kind:
    if message[:1] != _PREFIX:
        raise WireError(f"version {VERSION} is needed: {message[:_SHOWN_BYTES]!r}")
    try:
        return decoder.decode(memoryview(message)[1:])
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"{error}: {message[:_SHOWN_BYTES]!r}") from error
