"""The way to one upstream: its address and key, its circuit, and the patience with it."""

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import msgspec

from contract import (
    Completion,
    OutputError,
    Overloaded,
    RequestError,
    ServingError,
    Token,
    TookTooLong,
    UpstreamDown,
)
from workers.upstream.circuit import Circuit
from workers.upstream.exchange import Exchange, Head, Request, open_session
from workers.upstream.reach import Reach
from workers.upstream.refusals import refusal

logger = logging.getLogger(__name__)

#: Seconds between two looks at whether the caller still waits.
TICK_SECONDS = 0.2

#: Seconds before each further try at an answer of which nothing came: together less than a second, so that
#: a dead upstream is told of soon.
PAUSES_SECONDS = (0.25, 0.5)

#: Seconds of the longest pause that an upstream may ask for and that is waited for here.
LONGEST_WAIT_SECONDS = 2.0

#: Bytes of a refusal that are read.
REFUSAL_BYTES = 64 * 1024

#: Seconds that the network may be silent beyond what the model may: the clock here speaks first.
SPARE_SECONDS = 5.0

#: One try at an answer: tokens, None while nothing comes, and how it ended.
Attempt = Generator[Token | None, None, Completion]


class Line:
    """Shared by all requests to one upstream; `url` stands for it in the log, and has no slash at its end."""

    def __init__(self, url: str, reach: Reach) -> None:
        self.url = url
        self.reach = reach
        self._session = open_session()
        self._circuit = Circuit()
        self._lock = threading.Lock()

    def ask(self, attempt: Callable[[], Attempt]) -> Generator[Token, None, Completion]:
        """Yield what the attempt yields, empty tokens for its None; try again while nothing was said.

        Raises UpstreamDown at once while the circuit is open, TookTooLong if a token is too long in coming.
        """
        for pause_seconds in (*PAUSES_SECONDS, None):
            self._admit()
            has_begun = False
            try:
                watched = self._watched(attempt())
                with closing(watched):
                    while True:
                        token = next(watched)
                        has_begun = has_begun or not token.is_empty
                        yield token
            except StopIteration as end:
                completion: Completion = end.value
                return completion
            except (UpstreamDown, Overloaded, OutputError) as error:
                logger.warning("Upstream %s: %s", self.url, error)
                asked_seconds = error.retry_after_seconds or 0.0
                if has_begun or pause_seconds is None or asked_seconds > LONGEST_WAIT_SECONDS:
                    raise
            yield from _wait(max(pause_seconds, asked_seconds))
        raise AssertionError("the last attempt neither returned nor raised")

    def open(
        self, method: str, url: str, body: Any = None, tick_seconds: float = TICK_SECONDS
    ) -> Generator[bytes | None, None, None]:
        """Send the body as JSON and yield the pieces of a successful answer, None while nothing comes.

        Closing it closes the connection at once. Raises what a refusal stands for.
        """
        with closing(self._exchange(method, url, body).read(tick_seconds)) as heard:
            head: Head | None = None
            refused = b""
            for one in heard:
                if isinstance(one, Head):
                    head = one
                elif head is None or head.status == 200:
                    yield one
                else:
                    refused += one or b""
                    if len(refused) > REFUSAL_BYTES:
                        break
                    if one is None:
                        yield None
            if head is None:
                raise UpstreamDown("the upstream closed the connection without an answer")
            if head.status != 200:
                raise refusal(head.status, head.headers, refused)

    def fetch(self, method: str, url: str, body: Any = None, *, seconds: float) -> Any:
        """Return the JSON of a short answer. Raises a ServingError, TookTooLong among them."""
        deadline = time.monotonic() + seconds
        pieces = []
        with closing(self.open(method, url, body)) as opened:
            for piece in opened:
                pieces.append(piece or b"")
                if time.monotonic() > deadline:
                    raise TookTooLong(f"the upstream did not answer within {seconds:g} seconds")
        return read_json(b"".join(pieces))

    def close(self) -> None:
        """Close the connections that wait for another request."""
        self._session.close()

    def _exchange(self, method: str, url: str, body: Any) -> Exchange:
        reach = self.reach
        headers = {"Accept-Encoding": "identity", "User-Agent": "lectern"}
        if reach.api_key is not None:
            headers["Authorization"] = f"Bearer {reach.api_key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        silence = max(reach.first_token_seconds, reach.pause_seconds) + SPARE_SECONDS
        encoded = None if body is None else msgspec.json.encode(body)
        return Exchange(
            self._session,
            Request(method, url, headers, encoded, reach.connect_seconds, silence),
        )

    def _watched(self, attempt: Attempt) -> Generator[Token, None, Completion]:
        """Yield the attempt's tokens, look at the clock while none comes, and tell the circuit of it."""
        progress_at = time.monotonic()
        patience_seconds = self.reach.first_token_seconds
        is_known = False
        try:
            with closing(attempt):
                while True:
                    token = next(attempt)
                    now = time.monotonic()
                    if token is not None:
                        progress_at, patience_seconds = now, self.reach.pause_seconds
                        if not is_known:
                            self._succeed()
                            is_known = True
                    elif now - progress_at > patience_seconds:
                        raise TookTooLong(f"the upstream sent no token for {patience_seconds:g} seconds")
                    yield token or NOTHING_YET
        except StopIteration as end:
            self._succeed()
            is_known = True
            completion: Completion = end.value
            return completion
        except (UpstreamDown, TookTooLong, OutputError):
            self._fail()
            is_known = True
            raise
        except ServingError as error:
            if isinstance(error, RequestError):  # it refuses this request, so it is alive
                self._succeed()
                is_known = True
            raise
        finally:
            if not is_known:
                with self._lock:
                    self._circuit.leave()

    def _admit(self) -> None:
        with self._lock:
            wait_seconds = self._circuit.admit(time.monotonic())
        if wait_seconds > 0:
            raise UpstreamDown(
                "the upstream does not answer; it is tried again soon", retry_after_seconds=wait_seconds
            )

    def _succeed(self) -> None:
        with self._lock:
            was_open = self._circuit.is_open
            self._circuit.succeed()
        if was_open:
            logger.info("Upstream %s answers again", self.url)

    def _fail(self) -> None:
        with self._lock:
            was_open = self._circuit.is_open
            self._circuit.fail(time.monotonic())
            opens = self._circuit.is_open and not was_open
        if opens:
            logger.error("Upstream %s does not answer: requests to it fail at once until it does", self.url)


#: Says "still at work".
NOTHING_YET = Token(0, (), "")


def read_json(body: bytes) -> Any:
    """Return the JSON of a whole answer. Raises OutputError."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise OutputError(f"the upstream's answer is not JSON: {body[:60]!r}") from error


def _wait(seconds: float) -> Generator[Token, None, None]:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, TICK_SECONDS))
        yield NOTHING_YET
