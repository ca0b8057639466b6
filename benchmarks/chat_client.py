"""A client of streamed chats that costs the machine little: plain sockets, a clock at every piece of text."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

#: Most bytes of an answer's head, and most bytes read at once.
READ_BYTES = 65_536

#: Where every server of OpenAI's chat API listens.
CHAT_PATH = "/v1/chat/completions"


class ChatRefused(Exception):
    """The server answered with something else than the answer: its status and its words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status


@dataclass
class StreamRecord:
    """One streamed answer: when it was asked, when each piece of text came, and what the server counted.

    Times are seconds of `time.perf_counter`. A chunk without text is no piece: nobody sees it.
    """

    asked_at: float
    ended_at: float = 0.0
    piece_times: list[float] = field(default_factory=list)
    text: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None

    @property
    def tokens(self) -> int:
        """Answer tokens as the server counts them, or else pieces."""
        return int(self.usage.get("completion_tokens", len(self.piece_times)))

    @property
    def first_token_seconds(self) -> float:
        """From the question to the first text; an answer without any shows at its end that it is one."""
        return (self.piece_times[0] if self.piece_times else self.ended_at) - self.asked_at

    @property
    def gaps_seconds(self) -> list[float]:
        """From each piece of text to the next."""
        return [
            later - earlier for earlier, later in zip(self.piece_times, self.piece_times[1:], strict=False)
        ]

    def take(self, chunk: dict[str, Any], now: float) -> None:
        """Note one chunk of the stream. Raises ChatRefused if it tells of a failure."""
        if "error" in chunk:
            raise ChatRefused(200, json.dumps(chunk["error"], ensure_ascii=False))
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices", ()):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if text := (choice.get("delta") or {}).get("content"):
                self.text += text
                self.piece_times.append(now)


class ServerSentEvents:
    """Cuts a stream of bytes into the data of its events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data of each event that is whole now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


class ChunkedBody:
    """Takes HTTP's chunked transfer coding (RFC 9112, section 7.1) off a body."""

    def __init__(self) -> None:
        self._rest = b""
        self.is_finished = False

    def feed(self, data: bytes) -> bytes:
        """Return what of the content is known now."""
        self._rest += data
        content = []
        while not self.is_finished and b"\r\n" in self._rest:
            size_line, behind = self._rest.split(b"\r\n", 1)
            size = int(size_line.split(b";")[0], 16)
            if len(behind) < size + 2:
                break
            content.append(behind[:size])
            self._rest = behind[size + 2 :]
            self.is_finished = size == 0
        return b"".join(content)


async def ask(url: str, path: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
    """POST and return the whole answer as JSON. Raises ChatRefused, OSError or TimeoutError."""
    async with asyncio.timeout(seconds):
        return dict(json.loads(b"".join([data async for data in _post(url, path, body)])))


async def stream_chat(url: str, body: dict[str, Any], seconds: float) -> StreamRecord:
    """POST a streamed chat and read it to its end. Raises ChatRefused, OSError or TimeoutError."""
    record = StreamRecord(asked_at=time.perf_counter())
    events = ServerSentEvents()
    async with asyncio.timeout(seconds):
        async for data in _post(url, CHAT_PATH, body):
            now = time.perf_counter()
            for event in events.feed(data):
                if event != b"[DONE]":
                    record.take(json.loads(event), now)
    record.ended_at = time.perf_counter()
    return record


async def stream_at_once(url: str, bodies: Sequence[dict[str, Any]], seconds: float) -> list[StreamRecord]:
    """Stream all of them side by side."""
    return list(await asyncio.gather(*(stream_chat(url, body, seconds) for body in bodies)))


async def _post(url: str, path: str, body: dict[str, Any]) -> Any:
    """Yield the content of the answer as it comes."""
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
    try:
        writer.write(_request(f"{host}:{port}", path, json.dumps(body, ensure_ascii=False).encode()))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        chunked = ChunkedBody() if "transfer-encoding: chunked" in head.lower() else None
        contents = _contents(reader, chunked)
        if (status := int(head.split(" ", 2)[1])) != 200:
            words = b"".join([content async for content in contents])
            raise ChatRefused(status, words.decode(errors="replace"))
        async for content in contents:
            yield content
    finally:
        writer.close()


def _request(host: str, path: str, content: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


async def _contents(reader: asyncio.StreamReader, chunked: ChunkedBody | None) -> Any:
    while data := await reader.read(READ_BYTES):
        if content := chunked.feed(data) if chunked else data:
            yield content
        if chunked and chunked.is_finished:
            return
    if chunked and not chunked.is_finished:
        raise ConnectionError("the server hung up before the end of its answer")
