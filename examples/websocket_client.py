"""A client of the question server: a few questions at once. python examples/websocket_client.py [URL]

Needs the library `websockets`; where the server asks for a key, give it in the variable LECTERN_API_KEY.
"""

import json
import os
import sys
from typing import Any

from websockets.sync.client import ClientConnection, connect

#: Where a server listens unless it is told otherwise.
DEFAULT_URL = "http://127.0.0.1:8080"

#: Seconds for a reply.
REPLY_SECONDS = 600.0

QUESTIONS: list[dict[str, Any]] = [
    {"id": 0, "question": "你好"},
    {"id": 1, "question": "Count to ten.", "forward_times": 8},
    {"id": 2, "question": "Count to ten.", "forward_times": 8, "is_decode": False},
    {
        "id": 3,
        "question": "以下是中国关于地理考试的单项选择题，请选出其中的正确答案。\n\n中国的首都是____。\n"
        "A. 上海\nB. 北京\nC. 广州\nD. 深圳\n答案：",
        "is_predict_option": True,
    },
]


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_URL
    key = os.environ.get("LECTERN_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else None
    address = url.replace("http", "ws", 1)  # http:// and https:// are told as what they are upgraded to
    with connect(address, additional_headers=headers, proxy=None) as client:
        for question in QUESTIONS:  # all at once: the server works on them together
            client.send(json.dumps(question, ensure_ascii=False))
        for _ in QUESTIONS:  # and answers in any order
            show(json.loads(client.recv(REPLY_SECONDS)))
        print(f"{speed(client, 'tps'):.1f} tokens a second, {speed(client, 'ftl'):.3f} s to the first")


def show(reply: dict[str, Any]) -> None:
    if "error" in reply:
        print(f"{reply['id']}: {reply['error']['code']}: {reply['error']['message']}")
    else:
        print(f"{reply['id']}: {reply['answer']!r} (first token after {reply['ftl']:.3f} s)")


def speed(client: ClientConnection, word: str) -> float:
    client.send(word)
    return float(client.recv(REPLY_SECONDS))


if __name__ == "__main__":
    main()
