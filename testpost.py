"""Smoke test: sends a running Lectern server a chat, a streamed chat, a book retrieval and a bad request.

Shows the answers as they come and the seconds they took; exit status 0 if all is well, else 1.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import requests

#: Where serveapi.py listens unless told otherwise.
DEFAULT_URL = "http://127.0.0.1:8080"

#: Seconds that the server has to get ready, and then for each answer: a large model on a CPU is slow.
DEFAULT_TIMEOUT_SECONDS = 120.0

#: Seconds between two looks at a server that is not ready.
LOOK_SECONDS = 0.5

#: What is asked: fits any model, and the catalogue that the embedded database starts with.
QUESTION = "你好，请用一句话介绍你自己。"
WISH = "帮我找找有关函数求导的书"

Kind = TypeVar("Kind")


class CheckFailed(Exception):
    """The server did not do what the check expects; the message says what was wrong."""


class Server:
    """The server under test; every wait ends after `timeout` seconds."""

    def __init__(self, url: str, timeout: float, key: str | None) -> None:
        self.url = url.rstrip("/")
        self.first_token_seconds: float | None = None  # of the check under way, where it is known
        self._timeout = timeout
        self._session = requests.Session()
        self._session.headers.update({"Authorization": f"Bearer {key}"} if key else {})

    def wait_until_ready(self) -> None:
        """Return once a worker holds a model; say what is missing until then."""
        deadline = time.monotonic() + self._timeout
        said = None
        while (missing := self._missing()) is not None:
            late = f"{self.url} is not ready after {self._timeout:g} seconds: {missing}"
            _expect(time.monotonic() < deadline, late)
            if missing != said:
                said = missing
                print(f"Waiting for {self.url}: {missing}", flush=True)
            time.sleep(LOOK_SECONDS)

    def ask(self, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
        """Post and return the JSON object that comes back with that status."""
        response = self._post(path, body)
        print(response.text.strip(), flush=True)
        _expect(response.status_code == status, f"status {response.status_code} instead of {status}")
        return _read_object(response.text)

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Post and yield the server-sent events as (name, data) while they arrive."""
        deadline = time.monotonic() + self._timeout
        with self._post(path, body, stream=True) as response:
            if not response.ok:
                raise CheckFailed(f"status {response.status_code}: {response.text}")
            name = ""
            for line in response.iter_lines(chunk_size=1):  # larger chunks would hold tokens back
                field, _, value = line.decode(errors="replace").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, _read_object(value)
                _expect(time.monotonic() < deadline, f"no end after {self._timeout:g} seconds")

    def _post(self, path: str, body: dict[str, Any], stream: bool = False) -> requests.Response:
        print(f"POST {path} {json.dumps(body, ensure_ascii=False)}", flush=True)
        return self._session.post(self.url + path, json=body, stream=stream, timeout=self._timeout)

    def _missing(self) -> str | None:
        """What the server lacks to be ready."""
        try:
            response = self._session.get(f"{self.url}/readyz", timeout=self._timeout)
        except (requests.ConnectionError, requests.Timeout):
            return "nothing answers there (start a server with: make run)"
        said = f"/readyz answers {response.status_code} {' '.join(response.text.split())}"
        return None if response.status_code == 200 else said


def check_chat(server: Server) -> None:
    text = _field(server.ask("/chat", {"msg": QUESTION, "temperature": 0.7}), "respond", str)
    _expect(text.strip() != "", "`respond` is empty")


def check_streamed_chat(server: Server) -> None:
    started = time.monotonic()
    text, ending = "", None
    messages = [{"role": "user", "content": QUESTION}]
    for name, data in server.stream("/tasks/chat", {"messages": messages, "stream": True}):
        _expect(ending is None, f"an event {name!r} after the end")
        if name == "token":
            server.first_token_seconds = server.first_token_seconds or time.monotonic() - started
            text += _field(data, "text", str)
            print(data["text"], end="", flush=True)
        else:
            ending = name
            print(f"\n{name}: {json.dumps(data, ensure_ascii=False)}", flush=True)
    _expect(ending == "finished", f"the stream ended with {ending or 'nothing'} instead of finished")
    _expect(text.strip() != "", "the stream held no text")
    _expect("\ufffd" not in text, "the text holds half characters")


def check_book_retrieval(server: Server) -> None:
    found = server.ask("/tasks/book_retrieval", {"wish": WISH})
    answer, rows = _field(found, "answer", dict), _field(found, "rows", list)
    _expect_titles(answer, rows)
    _expect(all("key" in row for row in rows), "a row lacks its key")
    _expect(_field(found, "considered_rows", int) >= len(rows), "fewer rows considered than found")
    _expect(_read_object(_field(found, "text", str)) == answer, "`text` and `answer` differ")
    server.first_token_seconds = _field(_field(found, "timings", dict), "first_token_seconds", float)


def check_old_book_route(server: Server) -> None:
    found = server.ask("/book", {"msg": WISH, "temperature": 0.7})
    _expect_titles(_read_object(_field(found, "respond", str)), _field(found, "books", list))


def check_bad_request(server: Server) -> None:
    error = _field(server.ask("/chat", {"temperature": 0.7}, status=400), "error", dict)
    for name, kind in (("code", str), ("message", str), ("retryable", bool)):
        _field(error, name, kind)


CHECKS = (check_chat, check_streamed_chat, check_book_retrieval, check_old_book_route, check_bad_request)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default=DEFAULT_URL, help="the server (default: %(default)s)")
    timeout_help = "seconds to wait for the server to be ready, and for each answer (default: %(default)g)"
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_SECONDS, help=timeout_help)
    parser.add_argument("--key", help="an API key, if the server asks for one")
    options = parser.parse_args(arguments)
    try:
        server = Server(options.url, options.timeout, options.key)
        server.wait_until_ready()
    except (CheckFailed, requests.RequestException) as error:
        print(f"testpost.py: {error}", file=sys.stderr)
        return 1
    failed = [check.__name__ for check in CHECKS if not _passes(check, server)]
    print("\nFAILED:" if failed else "\nall ok", *failed)
    return 1 if failed else 0


def _passes(check: Callable[[Server], None], server: Server) -> bool:
    print(f"\n--- {check.__name__}")
    server.first_token_seconds = None
    started = time.monotonic()
    try:
        check(server)
    except (CheckFailed, requests.RequestException, json.JSONDecodeError) as error:
        print(f"FAILED after {time.monotonic() - started:.2f} s: {error}")
        return False
    first = "" if server.first_token_seconds is None else f", first token {server.first_token_seconds:.2f} s"
    print(f"ok in {time.monotonic() - started:.2f} s{first}")
    return True


def _expect_titles(answer: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Every book of the answer is one of the rows, and every row is in the answer."""
    titles = [_field(row, "title", str) for row in rows]
    strangers = [title for title in answer.values() if title not in titles]
    _expect(not strangers, f"no returned row has the title {strangers}")
    _expect(len(answer) == len(titles), f"{len(answer)} books in the answer, but {len(titles)} rows")


def _field(data: dict[str, Any], name: str, kind: type[Kind]) -> Kind:
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, kind):
        raise CheckFailed(f"`{name}` must be of type {kind.__name__}, not {value!r}")
    return value


def _read_object(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    _expect(isinstance(value, dict), f"not a JSON object: {text[:200]!r}")
    return value


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CheckFailed(otherwise)


if __name__ == "__main__":
    sys.exit(main())
