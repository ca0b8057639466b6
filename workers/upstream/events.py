"""Takes server-sent events out of the bytes of a response, wherever these were cut."""

import re
from collections.abc import Iterator

from contract import OutputError

#: Bytes of the longest event: far above a token with the most log probabilities.
EVENT_BYTES = 4 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventReader:
    """Collects pieces of a response; see https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._bytes = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the data of each event that is whole now; comments and other fields say nothing here."""
        *lines, self._rest = _LINE_END.split(self._rest + piece)
        if self._rest == b"" and piece.endswith(b"\r"):
            self._rest = lines.pop() + b"\r"  # its "\n" may come with the next piece
        for line in lines:
            yield from self._take(line)
        if len(self._rest) + self._bytes > EVENT_BYTES:
            raise OutputError(f"the upstream sent an event of more than {EVENT_BYTES} bytes")

    def _take(self, line: bytes) -> Iterator[bytes]:
        if not line:
            if any(self._data):
                yield b"\n".join(self._data)
            self._data, self._bytes = [], 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._bytes += len(value)
