"""Two conversations at once on one loaded model, in this process: python examples/terminal_sessions.py

No server is needed; run it from the project's folder, or from anywhere with the project on PYTHONPATH.
"""

import sys
from contextlib import closing
from itertools import zip_longest
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from contract import Model  # noqa: E402
from LLMkernel import chat_stream  # noqa: E402
from workers.models import create_model  # noqa: E402
from workers.placement import Placement  # noqa: E402

QUESTIONS = {"Ann": ["你好", "微积分是什么？"], "Ben": ["What is calculus?", "Thank you!"]}


def main() -> None:
    model = create_model(str(PROJECT / "models" / "demo"), "demo", Placement(device="cpu", capacity=2))
    with closing(model):
        talk(model)


def talk(model: Model) -> None:
    histories: dict[str, list[dict[str, str]]] = {name: [] for name in QUESTIONS}
    for questions in zip(*QUESTIONS.values(), strict=True):
        asked = dict(zip(QUESTIONS, questions, strict=True))
        answers = dict.fromkeys(asked, "")
        streams = [chat_stream(model, question, histories[name]) for name, question in asked.items()]
        for pieces in zip_longest(*streams, fillvalue=""):  # the model works on both at the same time
            for name, piece in zip(asked, pieces, strict=True):
                answers[name] += piece
        for name, question in asked.items():
            print(f"{name}: {question}\n  {answers[name]}", flush=True)
            histories[name] += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answers[name]},
            ]


if __name__ == "__main__":
    main()
