"""A client of YuanChat's server and of Yuan-2.0's: python examples/yuan_client.py [URL]"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import requests

#: Seconds for one answer: a large model on a CPU is slow.
TIMEOUT_SECONDS = 120


def subscribe(url: str, turns: Sequence[tuple[str, str]], **fields: Any) -> Iterator[str]:
    """Yield the message of each event; the last turn has no answer yet."""
    messages = [{"question": question, "answer": answer} for question, answer in turns]
    body = {"messages": messages, "response_length": 200, **fields}
    with requests.post(f"{url}/sse/subscribe", json=body, stream=True, timeout=TIMEOUT_SECONDS) as response:
        for line in response.iter_lines():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))["resData"]["message"]


def infer(url: str, questions: Sequence[str], **fields: Any) -> list[str]:
    """Return an answer for each question; they are worked on together."""
    ques_list = [{"id": str(number), "ques": question} for number, question in enumerate(questions)]
    response = requests.put(f"{url}/yuan", json={"ques_list": ques_list, **fields}, timeout=TIMEOUT_SECONDS)
    answer = response.json()
    if not answer["flag"]:
        raise RuntimeError(answer["exceptionMsg"])
    return [one["ans"] for one in answer["resData"]["output"]]


def main(url: str = "http://127.0.0.1:8080") -> None:
    question = "你好，请用一句话介绍你自己。"
    (first,) = subscribe(url, [(question, "")])
    print("Answer:", first)
    *_, second = subscribe(url, [(question, first), ("什么是微积分？", "")], stream=True)
    print("Second turn, as it grew:", second)
    for answer in infer(url, ["你好<sep>", "什么是导数？<sep>"], tokens_to_generate=60, temperature=0.5):
        print("Yuan-2.0:", answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
