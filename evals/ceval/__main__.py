"""Gives the exam: questions -> server -> results file -> figures, submission, plot."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from tqdm import tqdm

from evals.ceval.asking import ask_all
from evals.ceval.channel import Channel, Reply, Wish
from evals.ceval.errors import ExamError
from evals.ceval.letters import READINGS, last_letter
from evals.ceval.options import is_websocket, parse_options
from evals.ceval.over_http import HttpChannel
from evals.ceval.over_websocket import WebSocketChannel
from evals.ceval.prompts import ExamQuestion, build_exam
from evals.ceval.questions import find_subjects
from evals.ceval.report import render_report, write_submission
from evals.ceval.results import Answer, Conditions, Results
from evals.ceval.scores import Letters, average_categories, score_subjects
from evals.ceval.subjects import choose_subjects

#: Exit status after Ctrl-C, as shells have it.
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every question has an answer, else 1."""
    options = parse_options(arguments)
    try:
        return run(options)
    except (ExamError, OSError) as error:
        print(f"ceval: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"ceval: stopped; the same command goes on from {options.results}", file=sys.stderr)
        return INTERRUPTED


def run(options: argparse.Namespace) -> int:
    """Ask what is missing, then write everything that was wished for. Raises ExamError, OSError."""
    names = options.subjects or find_subjects(options.questions, options.split)
    exam = build_exam(options.questions, choose_subjects(names), options.split, options.shots)
    conditions = Conditions(options.split, options.shots, not options.free, options.max_tokens, options.model)
    with Results(options.results, conditions) as results:
        refused = ask_missing(options, exam, results)
        read = READINGS[options.letter] if options.free else last_letter
        letters = {key: read(answer.answer) for key, answer in results.answers.items()}
    write_figures(options, exam, letters)
    tell_gaps(exam, letters, refused)
    return 1 if refused else 0


def ask_missing(
    options: argparse.Namespace, exam: Sequence[ExamQuestion], results: Results
) -> dict[int, str]:
    """Ask what has no answer yet, and keep each answer as it comes; return what was refused, and why."""
    prompts = results.missing(exam)
    answered = len(exam) - len(prompts)
    bar = tqdm(total=len(exam), initial=answered, unit="question", disable=None)

    def take(reply: Reply) -> None:
        one = exam[reply.number]
        results.add(Answer(*one.key, one.digest, reply.answer, reply.first_token_seconds))
        bar.update()

    def tell(words: str) -> None:
        bar.write(f"ceval: {words}", file=sys.stderr)

    with closing(open_channel(options)) as channel, bar:
        refused = ask_all(channel, prompts, take, pause=time.sleep, tell=tell)
    if channel.speed is not None:
        figures = f"{channel.speed.tokens_per_second:.2f} tokens per second"
        print(f"server: {figures}, first token after {channel.speed.first_token_seconds:.3f} s\n")
    return refused


def open_channel(options: argparse.Namespace) -> Channel:
    """Choose the protocol by the server's address; nothing is connected yet."""
    wish = Wish(not options.free, options.max_tokens)
    if is_websocket(options.server):
        return WebSocketChannel(options.server, wish, options.patience, options.key)
    return HttpChannel(
        options.server, wish, options.patience, options.key, model=options.model, at_once=options.at_once
    )


def write_figures(options: argparse.Namespace, exam: Sequence[ExamQuestion], letters: Letters) -> None:
    """Print the accuracies, where answers are known, and write the files that were wished for."""
    if options.split != "test":
        scores = score_subjects(exam, letters)
        averages = average_categories(scores)
        print(render_report(scores, averages))
        if options.plot:
            # Only here, as people who want no plot need no matplotlib.
            from evals.ceval.plot import draw_scores, write_plot

            title = f"C-Eval, split {options.split}, {options.shots} examples"
            write_plot(options.plot, draw_scores(scores, averages, title))
    if options.submission:
        write_submission(options.submission, exam, letters)


def tell_gaps(exam: Sequence[ExamQuestion], letters: Letters, refused: Mapping[int, str]) -> None:
    """Say what counts as wrong without being a wrong letter."""
    unread = sum(letters.get(one.key, "") is None for one in exam)
    if unread:
        print(f"ceval: answers without a letter where one is looked for: {unread}", file=sys.stderr)
    if refused:
        number, reason = next(iter(refused.items()))
        first = " ".join(exam[number].key)
        print(f"ceval: questions refused: {len(refused)}; the first, {first}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
