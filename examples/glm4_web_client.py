"""A client of ChatGlm4-Web-demo: a chat and a search for books. python examples/glm4_web_client.py [URL]"""

import json
import sys

import requests

#: Seconds for one answer: a large model on a CPU is slow.
TIMEOUT_SECONDS = 120


def ask(url: str, path: str, message: str, temperature: float) -> dict[str, object]:
    """Return the JSON object that the route answers with."""
    body = {"msg": message, "temperature": temperature}
    response = requests.post(url + path, json=body, timeout=TIMEOUT_SECONDS)
    response.raise_for_status()
    answer: dict[str, object] = response.json()
    return answer


def main(url: str = "http://127.0.0.1:8080") -> None:
    print("Chat:", ask(url, "/chat", "你好，请用一句话介绍你自己。", 0.7)["respond"])
    found = ask(url, "/book", "帮我找找有关函数求导的书", 0.7)
    for number, title in json.loads(str(found["respond"])).items():
        print(f"Book {number}: {title}")
    print("Rows:", found["books"])


if __name__ == "__main__":
    main(*sys.argv[1:])
