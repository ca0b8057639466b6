"""The book task, with cold and warm prefixes and growing catalogues: `python -m benchmarks.tasks --help`.

Asked are Lectern's own route (rows: one to five titles); with a JSON schema of five titles, through
/v1/chat/completions, Lectern (schema) and the peer; and Lectern's /tasks/chat with that schema (form), which
tells the steps. They take turns. Cold means a catalogue in an order that nobody saw yet, warm the same
catalogue with other wishes.
"""

import argparse
import asyncio
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import book_task
from benchmarks.book_task import Outcome
from benchmarks.chat_client import CHAT_PATH, ChatRefused, ask
from benchmarks.figures import percentile
from benchmarks.peers.commands import PEERS, ROOT, Job, NotInstalled, lectern
from benchmarks.prompts import PromptMaker
from benchmarks.report import RESULTS, circumstances, write_report
from benchmarks.running_server import DidNotStart, OwnServer, Server, free_port
from benchmarks.serve import whole_numbers
from engine.engine import STEP_TOKENS
from templates import TemplateTask, load_tasks

#: Peers that keep an answer to a schema.
SCHEMA_PEERS = ("vllm", "llamacpp", "llamacpp-int8")

#: How a question is put to a contestant: its path and body, and how the answer is read.
Question = tuple[str, dict[str, Any], Callable[[float, dict[str, Any]], Outcome]]


@dataclass
class Contestant:
    """Who is asked and how; `broke` says for how many rows it gave up, and why."""

    name: str
    server: Server
    question: Callable[[Sequence[str], str], Question]
    broke: dict[int, str] = field(default_factory=dict)


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--peer", choices=SCHEMA_PEERS, help="without one, Lectern alone is measured")
    parser.add_argument("--rows", type=whole_numbers, default=(25, 100, 250, 1000))
    parser.add_argument("--at-once", type=whole_numbers, default=(1, 8), help="wishes at the same time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=300, help="longest time of one answer")
    parser.add_argument("--lectern-flags", type=shlex.split, default=[], help="further flags of serveapi.py")
    parser.add_argument("--output", type=Path, help="where the result goes, else benchmarks/results/")
    return parser.parse_args(arguments)


class Campaign:
    """Everybody who takes part, and the catalogue that all are asked about in turn."""

    def __init__(self, options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        """Start the servers. Raises NotInstalled or DidNotStart."""
        self._options = options
        self._database = folder / "catalogue.db"
        self._seeds = count()
        templates = book_task.write_templates(folder / "templates", ROOT / "templates")
        self._task: TemplateTask = load_tasks(templates)["book_retrieval"]
        largest = book_task.prompt_of(self._task, book_task.catalogue(max(options.rows), 0), "?" * 20)
        tokens = PromptMaker(options.model).tokens_of(largest) + book_task.ANSWER_TOKENS
        book_task.write_catalogue(self._database, book_task.catalogue(1, 0))
        flags = ("--database", f"sqlite:///{self._database}", "--templates", str(templates))
        job = Job(options.model.resolve(), free_port(), options.threads, max(options.at_once), tokens)
        command = lectern(job, (*flags, *options.lectern_flags))
        ours = OwnServer(command, job.port, folder / "lectern.log", {"TMPDIR": str(folder)})
        self.servers = [stack.enter_context(ours)]
        self.contestants = [
            Contestant("lectern rows", ours, self._as_wish),
            Contestant("lectern schema", ours, self._as_chat(ours)),
            Contestant("lectern form", ours, self._as_form),
        ]
        if options.peer:
            job = Job(job.model, free_port(), job.threads, job.streams, tokens)
            peer = OwnServer(PEERS[options.peer](job), job.port, folder / "peer.log", {})
            self.servers.append(stack.enter_context(peer))
            words = book_task.grammar_question if "llamacpp" in options.peer else book_task.chat_question
            self.contestants.append(Contestant(options.peer, peer, self._as_chat(peer, words)))

    def measure(self) -> Iterator[dict[str, Any]]:
        """Yield one entry per contestant, size, number of wishes at once and state of the prefix."""
        for rows in self._options.rows:
            for contestant in self.contestants:
                self._ask_cold_and_warm(contestant, rows, 1)  # whatever is compiled once is compiled now
            for at_once in self._options.at_once:
                yield from self._measure_level(rows, at_once)

    def _measure_level(self, rows: int, at_once: int) -> Iterator[dict[str, Any]]:
        found: dict[tuple[str, str], list[Outcome]] = {}
        for _ in range(self._options.rounds):
            for contestant in self.contestants:
                for prefix, outcomes in self._ask_cold_and_warm(contestant, rows, at_once).items():
                    found.setdefault((contestant.name, prefix), []).extend(outcomes)
        for contestant in self.contestants:
            for prefix in ("cold", "warm"):
                about = {"rows": rows, "at_once": at_once, "prefix": prefix, "who": contestant.name}
                yield about | entry_of(found.get((contestant.name, prefix), []), contestant.broke.get(rows))

    def _ask_cold_and_warm(self, contestant: Contestant, rows: int, at_once: int) -> dict[str, list[Outcome]]:
        """Ask about a new catalogue, then about the same with other wishes; nothing of whoever gave up."""
        if rows in contestant.broke:
            return {}
        titles = book_task.catalogue(rows, next(self._seeds))
        book_task.write_catalogue(self._database, titles)
        try:
            return {
                prefix: asyncio.run(self._ask(contestant, titles, wishes))
                for prefix, wishes in (
                    ("cold", book_task.WISHES[:at_once]),
                    ("warm", book_task.WISHES[at_once : 2 * at_once]),
                )
            }
        except (ChatRefused, OSError, ValueError, KeyError) as error:
            contestant.broke[rows] = f"{type(error).__name__}: {error}"[:300]
            return {}

    async def _ask(
        self, contestant: Contestant, titles: Sequence[str], wishes: Sequence[str]
    ) -> list[Outcome]:
        questions = [contestant.question(titles, wish) for wish in wishes]
        return list(
            await asyncio.gather(
                *(ask_one(contestant.server.url, one, self._options.seconds) for one in questions)
            )
        )

    def _as_wish(self, titles: Sequence[str], wish: str) -> Question:
        return "/tasks/book_retrieval", {"wish": wish}, book_task.rows_outcome

    def _as_form(self, titles: Sequence[str], wish: str) -> Question:
        prompt = book_task.prompt_of(self._task, titles, wish)
        return "/tasks/chat", book_task.form_question(prompt, titles), book_task.form_outcome

    def _as_chat(
        self, server: Server, words: Callable[..., dict[str, Any]] = book_task.chat_question
    ) -> Callable[[Sequence[str], str], Question]:
        def question(titles: Sequence[str], wish: str) -> Question:
            prompt = book_task.prompt_of(self._task, titles, wish)
            return CHAT_PATH, words(server.model_name, prompt, titles), book_task.chat_outcome

        return question


async def ask_one(url: str, question: Question, seconds: float) -> Outcome:
    """Put one question and time it."""
    path, body, read = question
    began = time.perf_counter()
    answer = await ask(url, path, body, seconds)
    return read(time.perf_counter() - began, answer)


def entry_of(outcomes: Sequence[Outcome], broke: str | None = None) -> dict[str, Any]:
    """Return the figures of several answers to the same kind of question."""
    if broke or not outcomes:
        return {"failed": broke or "nothing was measured"}
    steps = [outcome.steps for outcome in outcomes if outcome.steps is not None]
    middle = statistics.median
    twice = sum(len(outcome.titles) - len(set(outcome.titles)) for outcome in outcomes)
    return {
        "seconds_p50": round(middle(outcome.seconds for outcome in outcomes), 4),
        "seconds_p99": round(percentile([outcome.seconds for outcome in outcomes], 99), 4),
        "prompt_tokens": middle(outcome.prompt_tokens for outcome in outcomes),
        "cached_tokens": middle(outcome.cached_tokens for outcome in outcomes),
        "answer_tokens": middle(outcome.answer_tokens for outcome in outcomes),
        "titles": middle(len(outcome.titles) for outcome in outcomes),
        "titles_named_twice": twice,
        "plain_steps": middle(outcome.plain_steps(STEP_TOKENS) for outcome in outcomes),
        "steps": middle(steps) if steps else None,
    }


def line_of(entry: dict[str, Any]) -> str:
    """Return an entry for whoever watches."""
    head = f"{entry['rows']:>5} rows, {entry['at_once']} at once, {entry['prefix']}: {entry['who']:16}"
    if "failed" in entry:
        return f"{head} failed: {entry['failed']}"
    steps = f", {entry['steps']} steps instead of {entry['plain_steps']}" if entry["steps"] else ""
    return f"{head} {entry['seconds_p50']:8.3f} s, {entry['titles']} titles{steps}"


def main() -> int:
    """Measure, print the entries and write the result."""
    options = read_options()
    report: dict[str, Any] = circumstances()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lectern-")))
            campaign = Campaign(options, folder, stack)
            report["entries"] = []
            for entry in campaign.measure():
                report["entries"].append(entry)
                print(line_of(entry), flush=True)
            report["servers"] = [server.facts() for server in campaign.servers]
    except (NotInstalled, DidNotStart, OSError, ValueError) as error:
        print(f"tasks: {error}", file=sys.stderr)
        return 1
    name = f"tasks_{options.peer}.json".replace("-", "_") if options.peer else "tasks.json"
    write_report(options.output or RESULTS / name, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
