"""The task of 25 books on an engine: how long a wish takes when the rows are new, and when they are known."""

import statistics
import time
from pathlib import Path
from random import Random
from typing import Any

from contract import ChatMessage, ChooseRows, Completion, FoundRow, Sampling
from engine.engine import Engine
from engine.tokenizer import ChatTokenizer
from records.embedded import TITLES
from templates import TemplateTask, load_tasks

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
TASK = "book_retrieval"

#: Books of an answer: as many as fit the first wish.
CHOSEN = 5

#: What keeps a model with random weights from closing its answer before it has named so many.
UNENDING = -100.0

#: The first meets rows that nobody has asked about, the second finds what the first has computed.
WISHES = ("帮我找找有关函数求导的书", "我想学线性代数")


def books(engine: Engine, tokenizer: ChatTokenizer, rounds: int) -> dict[str, Any]:
    """Return medians over rounds, each with the rows in another order; a round before them does not count."""
    template = load_tasks(TEMPLATES)[TASK]
    asked = [_round(engine, tokenizer, template, number) for number in range(rounds + 1)][1:]
    cold, warm = zip(*asked, strict=True)
    return {
        "prompt_tokens": statistics.median(one["prompt_tokens"] for one in warm),
        "answer_tokens": statistics.median(one["answer_tokens"] for one in warm),
        "cached_tokens": statistics.median(one["cached_tokens"] for one in warm),
        "steps": statistics.median(one["steps"] for one in warm),
        "cold_seconds": round(statistics.median(one["seconds"] for one in cold), 4),
        "warm_seconds": round(statistics.median(one["seconds"] for one in warm), 4),
    }


def _round(
    engine: Engine, tokenizer: ChatTokenizer, template: TemplateTask, number: int
) -> list[dict[str, float]]:
    titles = list(TITLES)
    Random(number).shuffle(titles)
    rows = [FoundRow(place, {"id": place, "title": title}) for place, title in enumerate(titles)]
    form = ChooseRows(tuple(titles), CHOSEN, none_allowed=False)
    return [_ask(engine, tokenizer, template.render(rows, wish), form) for wish in WISHES]


def _ask(engine: Engine, tokenizer: ChatTokenizer, prompt: str, form: ChooseRows) -> dict[str, float]:
    closing = [id_ for id_, token in enumerate(tokenizer.vocabulary.tokens) if token and b"}" in token]
    sampling = Sampling(temperature=0.0, logit_bias=dict.fromkeys(closing, UNENDING))
    started = time.perf_counter()
    generation = engine.generate(tokenizer.encode([ChatMessage("user", prompt)]), sampling, form)
    while True:
        try:
            next(generation)
        except StopIteration as end:
            completion: Completion = end.value
            break
    return {
        "seconds": time.perf_counter() - started,
        "steps": completion.usage.steps,
        "prompt_tokens": completion.usage.prompt_tokens,
        "answer_tokens": completion.usage.completion_tokens,
        "cached_tokens": completion.usage.cached_tokens,
    }
