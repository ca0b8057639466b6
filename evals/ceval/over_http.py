"""Asks over OpenAI's chat API: one request for each question, a bounded number of them at once."""

import json
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from evals.ceval.channel import Refusal, Reply, Speed, Wish
from evals.ceval.errors import ConnectionBroke, ServerUnusable
from evals.ceval.questions import LETTERS

#: Where every server of OpenAI's chat API listens.
CHAT_PATH = "/v1/chat/completions"

#: Statuses that are about the one question, such as a prompt that is too long.
QUESTION_STATUSES = (400, 413, 422)

#: Statuses below 500 after which the same may be asked again: took too long, too many requests.
BUSY_STATUSES = (408, 429)

#: Most characters of a server's words in a message of ours.
SHOWN_CHARACTERS = 200


class HttpChannel:
    """A server at `http://HOST:PORT`.

    A predicted letter is asked for with `structured_outputs` (an extension of vLLM's and ours): the answer
    is one of the four letters, and at temperature 0 it is the most probable of them.
    """

    def __init__(
        self,
        url: str,
        wish: Wish,
        patience_seconds: float,
        key: str | None = None,
        *,
        model: str | None = None,
        at_once: int = 8,
    ) -> None:
        self.speed: Speed | None = None
        self._url = url.rstrip("/") + CHAT_PATH
        self._wish = wish
        self._patience_seconds = patience_seconds
        self._model = model
        self._at_once = at_once
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"Authorization": f"Bearer {key}"} if key else {})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=at_once))

    def ask(self, prompts: Mapping[int, str]) -> Generator[Reply | Refusal, None, None]:
        """See Channel.ask; after the first failure nothing new is asked, and what is under way is awaited."""
        failures = []
        with ThreadPoolExecutor(self._at_once) as pool:
            asked = [pool.submit(self._ask_one, number, prompt) for number, prompt in prompts.items()]
            try:
                for future in as_completed(asked):
                    if future.cancelled():
                        continue
                    try:
                        yield future.result()
                    except ConnectionBroke as error:
                        failures.append(error)
                        _cancel(asked)
            finally:
                _cancel(asked)
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Close the connections that wait for another question."""
        self._session.close()

    def _ask_one(self, number: int, prompt: str) -> Reply | Refusal:
        try:
            status, content = self._post(self._body(prompt))
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise ServerUnusable(f"--server: {error}") from error
        except requests.RequestException as error:
            raise ConnectionBroke(str(error)) from error
        words = content.decode(errors="replace")[:SHOWN_CHARACTERS]
        if status in QUESTION_STATUSES:
            return Refusal(number, f"HTTP {status}: {words}")
        if status in BUSY_STATUSES or status >= 500:
            raise ConnectionBroke(f"HTTP {status}: {words}")
        if status != 200:
            raise ServerUnusable(f"{self._url} answers HTTP {status}: {words}")
        return Reply(number, self._read(content))

    def _post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        seconds = self._patience_seconds
        with self._session.post(self._url, json=body, timeout=seconds, allow_redirects=False) as response:
            return response.status_code, response.content

    def _body(self, prompt: str) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}], "temperature": 0}
        if self._model is not None:
            body["model"] = self._model
        if self._wish.predicts:
            body["structured_outputs"] = {"choice": LETTERS}
        elif self._wish.max_tokens is not None:
            body["max_tokens"] = self._wish.max_tokens
        return body

    def _read(self, content: bytes) -> str:
        try:
            answer = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            words = content.decode(errors="replace")[:SHOWN_CHARACTERS]
            raise ServerUnusable(
                f"{self._url} answers something else than a chat completion: {words}"
            ) from None
        if self._wish.predicts and answer not in LETTERS:
            raise ServerUnusable(
                f"{self._url} does not keep answers to `structured_outputs`, so ask with --free; "
                f"it answered {str(answer)[:SHOWN_CHARACTERS]!r}"
            )
        return str(answer or "")


def _cancel(futures: list[Future[Reply | Refusal]]) -> None:
    for future in futures:
        future.cancel()
