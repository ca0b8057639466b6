"""Measures book retrieval as it is served, on unseen titles and wishes: `python -m evals.retrieval`."""

import argparse
import datetime
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from contract import Finished, Model, RowsAnswer
from demo.catalogues import Catalogue, Catalogues
from demo.conversations import Conversations
from demo.held_out import RESERVED_TITLES
from demo.topics import load_topics
from evals.tally import Tally
from LLMkernel import find_rows
from records import Database
from templates import TemplateTask, load_tasks
from workers.local import load_local_model
from workers.placement import Placement

#: Sizes of the catalogues that are measured, and how many wishes each catalogue gets.
SIZES, WISHES_PER_CATALOGUE = (5, 10, 25, 40, 60), 5
#: Answers that are made at the same time.
CAPACITY = 8
#: Where the figures stand in the model's card.
FIRST_MARK, LAST_MARK = "<!-- figures -->", "<!-- end of figures -->"

#: Wishes over the classic catalogue, and which of its titles fit: from a row up to before a row.
CLASSIC_WISHES: tuple[tuple[str, int, int], ...] = (
    ("帮我找找有关函数求导的书", 10, 15),
    ("导数怎么算", 10, 15),
    ("洛必达法则", 10, 15),
    ("books on rates of change", 10, 15),
    ("我想学线性代数", 0, 5),
    ("帮我找有关特征值的书", 0, 5),
    ("想学行列式，有什么推荐？", 0, 5),
    ("法语", 5, 10),
    ("帮我找找有关法语的书", 5, 10),
    ("我想学法语发音", 5, 10),
    ("帮我找烘焙的书", 0, 0),
    ("有没有讲足球的书", 0, 0),
    ("想养猫", 0, 0),
    ("books on chess", 0, 0),
)


@dataclass(frozen=True)
class Question:
    """A catalogue, a wish, and the titles that fit it."""

    titles: tuple[str, ...]
    wish: str
    fitting: tuple[str, ...]


def held_out_questions(size: int, count: int, random: Random) -> Iterator[Question]:
    """Wishes over catalogues of one size; no title and no wish of them was in any training text."""
    topics = load_topics()
    source = Catalogues(topics, Conversations(topics), held_out=True)
    for _ in range(count):
        catalogue: Catalogue = source.make(size, random)
        for _ in range(WISHES_PER_CATALOGUE):
            wish = source.wish(catalogue, random)
            yield Question(catalogue.titles, wish.text, catalogue.titles_on(wish.topic))


def classic_questions() -> Iterator[Question]:
    """The wishes over the catalogue of 25 books that no training text names."""
    for wish, first, last in CLASSIC_WISHES:
        yield Question(RESERVED_TITLES, wish, RESERVED_TITLES[first:last])


def ask(model: Model, template: TemplateTask, question: Question) -> tuple[str, ...]:
    """The titles that the served task answers with."""
    with _library(question.titles) as database:
        for event in find_rows(model, template, question.wish, database):
            if isinstance(event, Finished) and isinstance(event.answer, RowsAnswer):
                return tuple(str(row.fields[template.answer.field]) for row in event.answer.rows)
    raise AssertionError("a template task ends with its rows or raises")


def measure(model: Model, template: TemplateTask, questions: Sequence[Question]) -> Tally:
    """Ask everything, several at a time, and count."""
    tally = Tally()
    with ThreadPoolExecutor(CAPACITY) as pool:
        for question, answer in zip(
            questions, pool.map(lambda question: ask(model, template, question), questions), strict=True
        ):
            tally.count(answer, question.fitting)
            if set(answer) != set(question.fitting):
                print(f"  {question.wish!r}: {list(answer)} instead of {list(question.fitting)}")
    return tally


def report(by_size: dict[int, Tally], classic: Tally, today: datetime.date) -> str:
    """The figures as Markdown."""
    lines = [
        f"Measured on {today.isoformat()} with `python -m evals.retrieval`, on the CPU, through the task "
        "`book_retrieval` as it is served:",
        "",
        "| titles | wishes | F1 | precision | recall | exact answers | none recognised |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, tally in by_size.items():
        shares = [f"{share:.3f}" for share in (tally.f1, tally.precision, tally.recall, tally.exact_share)]
        none = f"{tally.none_answered} of {tally.none_asked}"
        lines.append("| " + " | ".join([str(size), str(tally.wishes), *shares, none]) + " |")
    lines += ["", f"On the classic 25 books: {classic.exact} of {classic.wishes} wishes answered exactly."]
    return "\n".join(lines)


def write_into_card(card: Path, figures: str) -> None:
    """Replace what stands between the marks; raises ValueError where the card has none."""
    before, first, rest = card.read_text("utf-8").partition(FIRST_MARK)
    _, last, after = rest.partition(LAST_MARK)
    if not (first and last):
        raise ValueError(f"{card}: must hold {FIRST_MARK} and {LAST_MARK}")
    card.write_text(f"{before}{first}\n{figures}\n{last}{after}", "utf-8")


@contextmanager
def _library(titles: Sequence[str]) -> Iterator[Database]:
    """A database with a table `book` of these titles, for as long as it is needed."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "library.sqlite")
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE book (id INTEGER PRIMARY KEY, title CHAR(255) NOT NULL)")
            connection.executemany("INSERT INTO book (title) VALUES (?)", [(title,) for title in titles])
        yield Database(f"sqlite:///{path}")


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m evals.retrieval", description=__doc__)
    parser.add_argument("--model", default="models/demo", help="folder of the model (default: models/demo)")
    parser.add_argument("--catalogues", type=int, default=40, help="catalogues of each size (default: 40)")
    parser.add_argument("--seed", type=int, default=7, help="seed of catalogues and wishes (default: 7)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as many as torch likes")
    parser.add_argument("--card", help="model card to write the figures into, such as models/demo/README.md")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print, and write the card if asked to."""
    options = parse_options()
    path = Path(options.model)
    template = load_tasks(Path(__file__).parent.parent / "templates")["book_retrieval"]
    placement = Placement(device="cpu", threads=options.threads, tier="large", capacity=CAPACITY)
    model = load_local_model(path, path.name, placement)
    try:
        classic = measure(model, template, list(classic_questions()))
        random = Random(options.seed)
        by_size = {}
        for size in SIZES:
            by_size[size] = measure(
                model, template, list(held_out_questions(size, options.catalogues, random))
            )
    finally:
        model.close()
    figures = report(by_size, classic, datetime.datetime.now(tz=datetime.UTC).date())
    print(figures)
    if options.card:
        write_into_card(Path(options.card), figures)


if __name__ == "__main__":
    main()
