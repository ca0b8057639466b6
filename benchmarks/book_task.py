"""The book task as it is measured: catalogues of any size, wishes, the same question in each API's words."""

import json
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from contract import FoundRow
from records.embedded import TITLES
from templates import TemplateTask

#: The answer of everybody: so many titles, or on our own route at most so many, but one.
TITLES_OF_AN_ANSWER = 5

#: Tokens that an answer of five titles never reaches.
ANSWER_TOKENS = 512

#: What larger catalogues are made of, beside the 25 books of the embedded one: 15 × 12 × 8 titles.
SUBJECTS = (
    *("代数", "几何", "拓扑", "概率", "统计", "力学", "电磁", "天文"),
    *("化学", "遗传", "生态", "逻辑", "编译", "网络", "密码"),
)
KINDS = ("导论", "精讲", "习题", "简史", "实验", "方法", "应用", "前沿", "漫谈", "手册", "问答", "图解")
READERS = ("给初学者", "给工程师", "给教师", "给中学生", "第一卷", "第二卷", "修订版", "一百讲")

#: Each asks for something that another does not, so that only the rows' part of a prompt comes twice.
WISHES = tuple(f"有没有讲{subject}的书？最好是{kind}。" for subject, kind in product(SUBJECTS, KINDS))

#: Our own task with the same bounds as the schema, but that it may name fewer.
ANSWER_RULES = f'[answer]\nfield = "title"\nat_most = {TITLES_OF_AN_ANSWER}\nnone_allowed = false\n'


@dataclass(frozen=True)
class Outcome:
    """One answer: how long it took, what the server counted, and which titles it names."""

    seconds: float
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    steps: int | None
    titles: tuple[str, ...]

    def plain_steps(self, step_tokens: int) -> int:
        """Return the steps of decoding without forced tokens and guesses: prompt chunks, then one a token."""
        chunks = -(-(self.prompt_tokens - self.cached_tokens) // step_tokens)
        return max(chunks, 1) + self.answer_tokens - 1


def catalogue(rows: int, seed: int) -> tuple[str, ...]:
    """Return so many distinct titles in an order of the seed's, of which each is a prefix of its own."""
    made = (f"{subject}{kind}：{reader}" for subject, kind, reader in product(SUBJECTS, KINDS, READERS))
    titles = (*TITLES, *made)[:rows]
    if len(titles) < rows:
        raise ValueError(f"at most {len(titles)} rows, got {rows}")
    return tuple(random.Random(seed).sample(titles, rows))


def write_catalogue(path: Path, titles: Sequence[str]) -> None:
    """Put these books, and no others, into the SQLite file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS book (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        connection.execute("DELETE FROM book")
        connection.executemany("INSERT INTO book (title) VALUES (?)", [(title,) for title in titles])


def write_templates(folder: Path, shipped: Path) -> Path:
    """Write a templates folder whose book task chooses as many titles as the schema asks for."""
    for name in ("tasks/book_retrieval.toml", "prompts/book_retrieval.jinja"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = (shipped / name).read_text(encoding="utf-8")
        rules = ANSWER_RULES if name.endswith(".toml") else ""
        (folder / name).write_text(text.split("[answer]")[0] + rules, encoding="utf-8")
    return folder


def prompt_of(task: TemplateTask, titles: Sequence[str], wish: str) -> str:
    """Return what our own task shows the model."""
    rows = [FoundRow(place, {"id": place, "title": title}) for place, title in enumerate(titles, 1)]
    return task.render(rows, wish)


def schema_of(titles: Sequence[str]) -> dict[str, Any]:
    """Return the schema of an answer that names five titles.

    The titles are sorted, so that a server which keeps compiled schemas needs one per size only.
    """
    numbers = [str(number) for number in range(1, TITLES_OF_AN_ANSWER + 1)]
    return {
        "type": "object",
        "properties": {number: {"enum": sorted(titles)} for number in numbers},
        "required": numbers,
        "additionalProperties": False,
    }


def chat_question(model: str, prompt: str, titles: Sequence[str]) -> dict[str, Any]:
    """Return the body for /v1/chat/completions."""
    schema = {"name": "books", "strict": True, "schema": schema_of(titles)}
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0.0,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


def grammar_question(model: str, prompt: str, titles: Sequence[str]) -> dict[str, Any]:
    """Return the same in llama.cpp's own notation of grammars.

    From a schema it would make a grammar that allows much white space, which random weights like to write.
    """
    title = " | ".join(_quoted(json.dumps(title, ensure_ascii=False)) for title in sorted(titles))
    pieces = [f"{_quoted(_before(number))} title" for number in range(1, TITLES_OF_AN_ANSWER + 1)]
    grammar = f"root ::= {' '.join(pieces)} {_quoted('}')}\ntitle ::= {title}\n"
    question = chat_question(model, prompt, titles) | {"grammar": grammar}
    del question["response_format"]
    return question


def form_question(prompt: str, titles: Sequence[str]) -> dict[str, Any]:
    """Return the same for /tasks/chat, which tells how many steps the answer took."""
    return {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0.0,
        "form": {"type": "json_schema", "schema": schema_of(titles)},
    }


def chat_outcome(seconds: float, answer: dict[str, Any]) -> Outcome:
    """Read the answer of /v1/chat/completions. Raises ValueError if it is not what the schema says."""
    usage = answer["usage"]
    details = usage.get("prompt_tokens_details") or {}
    counts = (usage["prompt_tokens"], details.get("cached_tokens") or 0, usage["completion_tokens"], None)
    return Outcome(seconds, *counts, _five_titles(answer["choices"][0]["message"]["content"]))


def form_outcome(seconds: float, answer: dict[str, Any]) -> Outcome:
    """Read the answer of /tasks/chat. Raises ValueError if it is not what the schema says."""
    return Outcome(seconds, *_own_counts(answer["usage"]), _five_titles(answer["text"]))


def rows_outcome(seconds: float, answer: dict[str, Any]) -> Outcome:
    """Read the answer of our own task."""
    return Outcome(seconds, *_own_counts(answer["usage"]), tuple(row["title"] for row in answer["rows"]))


def _before(number: int) -> str:
    """Return what stands before the title of that number."""
    return f'{"{" if number == 1 else ", "}"{number}": '


def _quoted(text: str) -> str:
    """Return a text as a terminal of llama.cpp's grammars."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _own_counts(usage: dict[str, int]) -> tuple[int, int, int, int]:
    return usage["prompt_tokens"], usage["cached_tokens"], usage["completion_tokens"], usage["steps"]


def _five_titles(text: str) -> tuple[str, ...]:
    titles = json.loads(text)
    if not isinstance(titles, dict) or len(titles) != TITLES_OF_AN_ANSWER:
        raise ValueError(f"the answer does not name {TITLES_OF_AN_ANSWER} titles: {text}")
    return tuple(titles.values())
