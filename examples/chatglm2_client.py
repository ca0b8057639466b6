"""A client of my-chatglm2: streams, interrupts, counts tokens. python examples/chatglm2_client.py [URL]"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import requests

#: Seconds for one event, and for an answer that is not streamed: a large model on a CPU is slow.
TIMEOUT_SECONDS = 120


def stream(url: str, **fields: Any) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the answer so far and the history that ends with it, each time the answer has grown."""
    with requests.post(f"{url}/stream", json=fields, stream=True, timeout=TIMEOUT_SECONDS) as response:
        response.raise_for_status()
        for event in response.iter_content(chunk_size=None):
            data = event.decode().removeprefix("data: ").strip()
            if not data.startswith("["):
                raise RuntimeError(data)
            text, history = json.loads(data)
            yield text, history


def main(url: str = "http://127.0.0.1:8080") -> None:
    history: list[list[str]] = []
    for query in ("你好", "请用一句话介绍你自己。"):
        events = list(stream(url, query=query, history=history, max_length=4096))
        text, history = events[-1]
        print(f"{query}: {text} ({len(events)} events)")
    (*_, (text, _)) = stream(url, query="微积分是什么？", answer_prefix="微积分")
    print("Begun for it:", text)
    for text, _ in stream(url, query="Tell me a story."):
        print("Interrupted after:", repr(text))
        print(requests.post(f"{url}/interrupt", timeout=TIMEOUT_SECONDS).json()["message"])
        break
    whole = requests.get(f"{url}/generate", {"query": "再见", "top_p": "0"}, timeout=TIMEOUT_SECONDS)
    print("Whole:", whole.text)
    body = {"text": "你好，世界", "return_tokens": True}
    print("Tokens:", requests.post(f"{url}/tokenize", json=body, timeout=TIMEOUT_SECONDS).json())


if __name__ == "__main__":
    main(*sys.argv[1:])
