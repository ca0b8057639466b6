"""The command line of an exam."""

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from evals.ceval.letters import READINGS
from evals.ceval.prompts import SHOTS
from evals.ceval.questions import SPLITS

#: How a server's address may begin, for the WebSocket protocol and for HTTP.
WEBSOCKET_SCHEMES, HTTP_SCHEMES = ("ws", "wss"), ("http", "https")

#: Seconds without any answer after which a connection is given up, as long as a gateway lets a task take.
PATIENCE_SECONDS = 600.0

#: Requests at once over HTTP.
AT_ONCE = 8


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; what cannot be kept ends the program with status 2."""
    parser = create_parser()
    options = parser.parse_args(arguments)
    if complaint := _complaint(options):
        parser.error(complaint)
    return options


def create_parser() -> argparse.ArgumentParser:
    """Return what knows every flag."""
    parser = argparse.ArgumentParser(
        prog="python -m evals.ceval",
        description="Gives C-Eval to a running server, and goes on where a run before ended.",
    )
    parser.add_argument("questions", type=Path, metavar="FOLDER", help="C-Eval's CSV files")
    parser.add_argument(
        "--results", type=Path, required=True, metavar="FILE", help="answers of this run, one a line"
    )
    _add_server(parser)
    _add_exam(parser)
    parser.add_argument(
        "--submission", type=Path, metavar="FILE", help="write the letters as C-Eval's site takes them"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the accuracies: .svg, .png or .pdf")
    return parser


def is_websocket(server: str) -> bool:
    """Tell by the address which protocol is meant."""
    return urlsplit(server).scheme in WEBSOCKET_SCHEMES


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        default="ws://127.0.0.1:8765",
        metavar="URL",
        help="ws://HOST:PORT or, for OpenAI's chat API, http://HOST:PORT (default: %(default)s)",
    )
    parser.add_argument("--key", help="an API key, if the server asks for one")
    parser.add_argument("--model", help="over HTTP: which of the server's models")
    parser.add_argument(
        "--at-once",
        type=int,
        default=AT_ONCE,
        metavar="N",
        help="over HTTP: requests at once (default: %(default)s)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_SECONDS,
        metavar="SECONDS",
        help="give a connection up after so long without an answer (default: %(default)g)",
    )


def _add_exam(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", choices=SPLITS, default="val", help="(default: %(default)s)")
    parser.add_argument(
        "--shots",
        type=int,
        choices=SHOTS,
        default=0,
        help="examples from the dev split before each question (default: %(default)s)",
    )
    parser.add_argument(
        "--subjects", nargs="+", metavar="SUBJECT", help="(default: all that the folder has files of)"
    )
    parser.add_argument(
        "--free", action="store_true", help="let the model answer freely, and read the letter in its answer"
    )
    parser.add_argument(
        "--letter",
        choices=sorted(READINGS),
        default="last",
        help="which letter of a free answer counts: its last character, or the first of A, B, C, D "
        "that stands in no word (default: %(default)s)",
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens of a free answer")


def _complaint(options: argparse.Namespace) -> str | None:
    if urlsplit(options.server).scheme not in (*WEBSOCKET_SCHEMES, *HTTP_SCHEMES):
        return f"--server must begin with ws://, wss://, http:// or https://, got {options.server}"
    if options.model and is_websocket(options.server):
        return "--model is for HTTP: the WebSocket protocol has no name of a model"
    if options.max_tokens is not None and not options.free:
        return "--max-tokens is for --free: a predicted answer is one letter"
    for name in ("at_once", "patience", "max_tokens"):
        value = getattr(options, name)
        if value is not None and not value >= 1:
            return f"--{name.replace('_', '-')} must be at least 1, got {value:g}"
    if options.plot and options.split == "test":
        return "--plot needs answers, which the split test has not"
    if options.plot and options.plot.suffix not in (".svg", ".png", ".pdf"):
        return f"--plot must end in .svg, .png or .pdf, got {options.plot}"
    return None
