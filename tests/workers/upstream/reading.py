"""Reads what an upstream model says, and makes one without looking for its server first."""

import threading
import time

from contract import Capabilities, ChatMessage, ModelCard, Sampling
from tests.workers.upstream.servers import DEADLINE_SECONDS
from workers.upstream.kinds import KINDS
from workers.upstream.line import Line
from workers.upstream.openai import OpenAIModel
from workers.upstream.reach import Reach

HELLO = [ChatMessage("user", "hello")]


def read(generation):
    """Return the text of each choice, and how it ended."""
    texts = {}
    while True:
        try:
            token = next(generation)
        except StopIteration as end:
            completion = end.value
            return [texts.get(choice, "") for choice in range(len(completion.reasons))], completion
        texts[token.choice] = texts.get(token.choice, "") + token.text


def text_of(generation):
    (text,), _ = read(generation)
    return text


def openai_model(url, kind=KINDS["vllm"], **reach):
    capabilities = Capabilities(goes_on=kind.go_on is not None, cannot_sample=kind.cannot_sample)
    card = ModelCard("theirs", "0", 4096, capabilities)
    return OpenAIModel(card, kind, "their-model", Line(url, Reach(**reach)))


def ask(model, form=None, messages=HELLO, **sampling):
    return model.generate(messages, Sampling(**sampling), form)


def within(seconds, event):
    assert event.wait(seconds), f"not within {seconds} s"


def eventually(condition, seconds=DEADLINE_SECONDS):
    """Wait for what other threads do and give no sign of."""
    deadline = time.monotonic() + seconds
    patience = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        patience.wait(0.01)
