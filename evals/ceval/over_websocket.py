"""Asks over the WebSocket protocol: all questions at once on one connection, answers in any order."""

import json
import socket
import struct
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from contract import ServingError
from evals.ceval.channel import Refusal, Reply, Speed, Wish
from evals.ceval.errors import ConnectionBroke, ServerUnusable

#: Seconds for the goodbye of a connection: a server that broke has none.
CLOSE_SECONDS = 1.0

#: Seconds for the server's figures: control frames are answered at once.
FIGURES_SECONDS = 10.0


class WebSocketChannel:
    """A server at `ws://HOST:PORT`; it must send something within `patience_seconds`, and read as well."""

    def __init__(self, url: str, wish: Wish, patience_seconds: float, key: str | None = None) -> None:
        self.speed: Speed | None = None
        self._url = url
        self._wish = wish
        self._patience_seconds = patience_seconds
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._retryable_codes = _retryable_codes(ServingError)

    def ask(self, prompts: Mapping[int, str]) -> Generator[Reply | Refusal, None, None]:
        """See Channel.ask; each call has a connection of its own."""
        # The pool is closed last: a sender that waits ends with its connection.
        with ThreadPoolExecutor(1) as pool, self._connect() as connection:
            try:
                # A server may read no further while it is busy, so that answers must be read meanwhile.
                sending = pool.submit(self._send_all, connection, prompts)
                yield from self._receive_all(connection, set(prompts))
                sending.result(self._patience_seconds)
                self.speed = _ask_speed(connection)
            except TimeoutError:
                raise ConnectionBroke(f"no answer within {self._patience_seconds:g} s") from None
            except (WebSocketException, OSError) as error:
                raise ConnectionBroke(str(error)) from error

    def close(self) -> None:
        """Every call of `ask` has closed its connection."""

    def _connect(self) -> ClientConnection:
        try:
            connection = connect(
                self._url, additional_headers=self._headers, proxy=None, close_timeout=CLOSE_SECONDS
            )
        except InvalidURI as error:
            raise ServerUnusable(f"--server: {error}") from error
        except InvalidStatus as error:
            status = error.response.status_code
            if status < 500:
                raise ServerUnusable(f"{self._url} refuses a WebSocket: HTTP {status}") from error
            raise ConnectionBroke(f"HTTP {status}") from error
        except (InvalidHandshake, OSError) as error:
            raise ConnectionBroke(str(error)) from error
        # Without it a server that never reads would hold the sender for ever.
        limit = struct.pack("ll", int(self._patience_seconds), 0)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return connection

    def _send_all(self, connection: ClientConnection, prompts: Mapping[int, str]) -> None:
        for number, prompt in prompts.items():
            frame: dict[str, Any] = {"id": number, "question": prompt}
            if self._wish.predicts:
                frame["is_predict_option"] = True
            elif self._wish.max_tokens is not None:
                frame["forward_times"] = self._wish.max_tokens
            connection.send(json.dumps(frame, ensure_ascii=False))

    def _receive_all(
        self, connection: ClientConnection, waiting: set[int]
    ) -> Generator[Reply | Refusal, None, None]:
        """Read a frame for each question; raises ConnectionBroke at the end if some were put off."""
        postponed = []
        while waiting:
            outcome = self._read_frame(connection.recv(self._patience_seconds, decode=True))
            if outcome.number not in waiting:
                raise ConnectionBroke(f"the server answered question {outcome.number}, which does not wait")
            waiting.remove(outcome.number)
            if isinstance(outcome, _Postponed):
                postponed.append(outcome.message)
            else:
                yield outcome
        if postponed:
            raise ConnectionBroke(
                f"{len(postponed)} questions were put off, the first because: {postponed[0]}"
            )

    def _read_frame(self, frame: str) -> "Reply | Refusal | _Postponed":
        with suppress(ValueError):  # no JSON
            match json.loads(frame):
                case {"id": int(number), "error": {"code": str(code), "message": str(message)}}:
                    kind = _Postponed if code in self._retryable_codes else Refusal
                    return kind(number, f"{code}: {message}")
                case {"id": int(number), "answer": str(answer), "ftl": float(seconds) | int(seconds)}:
                    return Reply(number, answer, seconds)
        raise ConnectionBroke(f"the server sent a frame that is none of its protocol's: {frame[:200]}")


class _Postponed(Refusal):
    """A question that the server would answer at another time."""


def _ask_speed(connection: ClientConnection) -> Speed:
    figures = []
    for name in ("tps", "ftl"):
        connection.send(name)
        frame = connection.recv(FIGURES_SECONDS, decode=True)
        try:
            figures.append(float(frame))
        except ValueError:
            raise ConnectionBroke(f"the server must answer {name} with a number, got {frame[:200]}") from None
    return Speed(*figures)


def _retryable_codes(family: type[ServingError]) -> frozenset[str]:
    """Return the codes of an error and of those below it after which the same may be asked again."""
    own = {family.code} if family.retryable else set()
    return frozenset(own).union(*(_retryable_codes(child) for child in family.__subclasses__()))
